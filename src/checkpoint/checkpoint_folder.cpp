#include "checkpoint/checkpoint_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

namespace sluice {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kStep = "step-", kUnfinished = ".sluice-unfinished", kRemoved = ".removed",
                           kLockFile = ".lock";

Descriptor locked(const fs::path& folder) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) throw system_failure("create directory", folder, failed.value());
  const fs::path file = folder / kLockFile;
  Descriptor lock(file, O_RDWR | O_CREAT, "write", 0666);
  // A process that was killed has it until it is gone, which takes a moment where it has much memory. File systems
  // without locks do without.
  constexpr double kMostSeconds = 3;
  constexpr std::chrono::milliseconds kMoment{20};
  const Stopwatch waited;
  while (::flock(lock.number(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    if (waited.seconds() < kMostSeconds) {
      std::this_thread::sleep_for(kMoment);
      continue;
    }
    throw user_error("another run is training in {}", folder.string())
        .advise("wait for its end, or let this run have another directory (checkpoint.checkpoint_dir)");
  }
  return lock;
}

// A link's place is taken by a rename, so that there is always one.
void put_link(const fs::path& folder, std::string_view name, const std::string& target) {
  const fs::path link = folder / name, made = folder / fmt::format(".{}.new", name);
  ::unlink(made.c_str());
  if (::symlink(target.c_str(), made.c_str()) != 0) throw system_failure("link", link, errno);
  if (::rename(made.c_str(), link.c_str()) != 0) throw system_failure("link", link, errno);
  sync_directory_of(link);
}

}  // namespace

std::string checkpoint_name(int64_t step) {
  return fmt::format("{}{}", kStep, step);
}

std::optional<int64_t> step_of_name(std::string_view name) {
  if (!name.starts_with(kStep)) return std::nullopt;
  const std::string_view digits = name.substr(kStep.size());
  int64_t step = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  const bool whole = step >= 0 && failure == std::errc() && end == digits.data() + digits.size();
  if (!whole || checkpoint_name(step) != name) return std::nullopt;
  return step;
}

std::vector<FoundCheckpoint> find_checkpoints(const fs::path& folder) {
  std::vector<FoundCheckpoint> found;
  std::error_code failed;
  for (fs::directory_iterator entry(folder, failed), end; !failed && entry != end; entry.increment(failed)) {
    std::error_code ignored;
    const auto step = step_of_name(entry->path().filename().string());
    if (step && entry->is_directory(ignored)) found.push_back({*step, entry->path()});
  }
  std::ranges::sort(found, {}, &FoundCheckpoint::step);
  return found;
}

bool is_checkpoint_folder(const fs::path& folder) {
  std::error_code failed;
  return fs::exists(folder / kLockFile, failed);
}

CheckpointFolder::CheckpointFolder(fs::path path) : path_(std::move(path)), lock_(locked(path_)) {
  sweep();
}

void CheckpointFolder::sweep() const {
  std::vector<fs::path> left;
  std::error_code failed;
  for (fs::directory_iterator entry(path_, failed), end; !failed && entry != end; entry.increment(failed)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with('.') && (name.ends_with(kUnfinished) || name.ends_with(kRemoved)))
      left.push_back(entry->path());
  }
  for (const fs::path& each : left) {
    fs::remove_all(each, failed);
    if (failed) throw system_failure("remove", each, failed.value());
    if (each.filename().string().ends_with(kUnfinished)) {
      log::info("removed {}, which a run that was killed left unfinished", each.string());
    }
  }
}

void CheckpointFolder::link(int64_t step, bool lowest) const {
  put_link(path_, kLatest, checkpoint_name(step));
  if (lowest) put_link(path_, kLowestLoss, checkpoint_name(step));
}

void CheckpointFolder::clean(const Retention& retention) const {
  if (!retention.recent) return;
  std::vector<FoundCheckpoint> found = find_checkpoints(path_);
  std::set<fs::path> linked;
  std::error_code failed;
  for (const std::string_view link : {kLatest, kLowestLoss}) linked.insert(fs::read_symlink(path_ / link, failed));
  const auto count = std::ssize(found);
  for (int64_t i = 0; i < count - *retention.recent; ++i) {
    const FoundCheckpoint& each = found[static_cast<size_t>(i)];
    if (linked.contains(each.path.filename())) continue;
    if (retention.every && each.step % *retention.every == 0) continue;
    // Under a name that is none of a checkpoint: half removed it must not be taken for one.
    const fs::path removed = path_ / fmt::format(".{}{}", each.path.filename().string(), kRemoved);
    if (::rename(each.path.c_str(), removed.c_str()) != 0) throw system_failure("remove", each.path, errno);
    fs::remove_all(removed, failed);
    if (failed) throw system_failure("remove", removed, failed.value());
  }
}

}  // namespace sluice
