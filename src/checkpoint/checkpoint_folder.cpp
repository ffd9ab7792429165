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
#include "base/text.h"

namespace sluice {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kStep = "step-", kUnfinished = ".sluice-unfinished", kRemoved = ".removed",
                           kLockFile = ".lock", kNewLink = ".new", kTemporary = ".tmp-";

Descriptor locked(const fs::path& folder) {
  make_run_directory(folder);
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

// Names that only a process that was killed leaves: of directories, links, and files that are written whole
// (base/file.h).
bool is_left_over(std::string_view name) {
  const size_t end = name.find_last_not_of("0123456789") + 1;
  if (end < name.size() && name.substr(0, end).ends_with(kTemporary)) return true;
  return name.starts_with('.') && (name.ends_with(kUnfinished) || name.ends_with(kRemoved) || name.ends_with(kNewLink));
}

// A link's place is taken by a rename, so that there is always one.
void put_link(const fs::path& folder, std::string_view name, const std::string& target) {
  const fs::path link = folder / name, made = folder / fmt::format(".{}{}", name, kNewLink);
  ::unlink(made.c_str());
  if (::symlink(target.c_str(), made.c_str()) != 0) throw system_failure("link", link, errno);
  if (::rename(made.c_str(), link.c_str()) != 0) throw system_failure("link", link, errno);
  sync_directory_of(link);
}

// What stands at a path that is not the directory that it should be.
std::string what_is(const fs::path& path) {
  std::error_code failed;
  const fs::file_status status = fs::symlink_status(path, failed);
  if (fs::is_regular_file(status)) return "a file";
  if (!fs::is_symlink(status)) return fs::is_directory(status) ? "a directory" : "neither a file nor a directory";
  const std::string target = fs::read_symlink(path, failed).string();
  const fs::file_status led_to = fs::status(path, failed);
  if (led_to.type() == fs::file_type::none) return fmt::format("a link to {}: {}", target, failed.message());
  return fmt::format("a link to {}, {}", target, fs::exists(led_to) ? "which is no directory" : "where nothing is");
}

constexpr const char* kElsewhere = "let this run have another directory (--checkpoint.checkpoint_dir)";

std::string set_aside(const fs::path& path) {
  return fmt::format("set it aside (mv {} {}), or {}", quoted_for_shell(path.string()),
                     quoted_for_shell(unused_name(path).string()), kElsewhere);
}

}  // namespace

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code failed;
  fs::directory_iterator entry(folder, failed);
  if (failed == std::errc::no_such_file_or_directory) return entries;
  for (; !failed && entry != fs::directory_iterator(); entry.increment(failed)) entries.push_back(entry->path());
  if (failed) throw system_failure("read directory", folder, failed.value());
  return entries;
}

void make_run_directory(const fs::path& folder) {
  std::error_code failed, unseen;
  fs::create_directories(folder, failed);
  if (!failed && fs::is_directory(folder, unseen)) return;
  fs::path at;
  for (const fs::path& part : folder) {
    at /= part;
    const fs::file_status status = fs::symlink_status(at, unseen);
    if (!fs::exists(status)) break;
    if (fs::is_directory(at, unseen)) continue;
    Error error = user_error("cannot make directory {}: {} is {}", folder.string(), at.string(), what_is(at));
    if (!fs::is_symlink(status)) throw std::move(error).advise(set_aside(at));
    const fs::path target = at.parent_path() / fs::read_symlink(at, unseen);
    const bool nothing = fs::status(at, unseen).type() == fs::file_type::not_found;
    throw std::move(error).advise(fmt::format(
        "{}remove the link (rm {}), or {}",
        nothing ? fmt::format("make what it leads to (mkdir -p {}), ", quoted_for_shell(target.string())) : "",
        quoted_for_shell(at.string()), kElsewhere));
  }
  throw system_failure("create directory", folder, failed.value());
}

fs::path unused_name(const fs::path& path) {
  std::error_code failed;
  for (int64_t number = 1;; ++number) {
    fs::path name = fmt::format("{}.{}", path.string(), number);
    if (fs::symlink_status(name, failed).type() == fs::file_type::not_found) return name;
    if (failed) throw system_failure("look for", name, failed.value());
  }
}

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
  for (const fs::path& entry : entries_of(folder)) {
    std::error_code failed;
    const auto step = step_of_name(entry.filename().string());
    if (step && fs::is_directory(entry, failed)) found.push_back({*step, entry});
  }
  std::ranges::sort(found, {}, &FoundCheckpoint::step);
  return found;
}

bool is_checkpoint_folder(const fs::path& folder) {
  std::error_code failed;
  return fs::exists(folder / kLockFile, failed);
}

CheckpointFolder::CheckpointFolder(fs::path path, FreeSpace free)
    : path_(std::move(path)), free_(std::move(free)), lock_(locked(path_)) {
  sweep();
}

void CheckpointFolder::sweep() const {
  for (const fs::path& each : entries_of(path_)) {
    const std::string name = each.filename().string();
    if (!is_left_over(name)) continue;
    std::error_code failed;
    fs::remove_all(each, failed);
    if (failed) throw system_failure("remove", each, failed.value());
    if (name.ends_with(kUnfinished)) {
      log::info("removed {}, which a run that was killed left unfinished", each.string());
    }
  }
}

void CheckpointFolder::link(int64_t step, bool lowest) const {
  put_link(path_, kLatest, checkpoint_name(step));
  if (lowest) put_link(path_, kLowestLoss, checkpoint_name(step));
}

void CheckpointFolder::link_resumed(const FoundCheckpoint& checkpoint, bool lowest) const {
  std::error_code failed;
  if (!fs::equivalent(checkpoint.path, of_step(checkpoint.step), failed)) return;
  const auto leads_there = [&](std::string_view link) {
    return fs::read_symlink(path_ / link, failed) == checkpoint_name(checkpoint.step);
  };
  if (!leads_there(kLatest) || (lowest && !leads_there(kLowestLoss))) link(checkpoint.step, lowest);
}

void CheckpointFolder::require_free_names(int64_t step) const {
  for (const fs::path& each : entries_of(path_)) {
    const std::string name = each.filename().string();
    std::error_code failed;
    const std::optional<int64_t> of = step_of_name(name);
    if (of && *of > step && !fs::is_directory(each, failed)) {
      throw user_error("{} is {}, and the checkpoint of step {} would be saved under this name", each.string(),
                       what_is(each), *of)
          .advise(set_aside(each));
    }
    if ((name == kLatest || name == kLowestLoss) && !fs::is_symlink(each, failed)) {
      throw user_error("{} is {}, and the run would link one of its checkpoints under this name", each.string(),
                       what_is(each))
          .advise(set_aside(each));
    }
  }
}

std::vector<FoundCheckpoint> CheckpointFolder::spare(int64_t recent, const Retention& retention) const {
  const std::vector<FoundCheckpoint> found = find_checkpoints(path_);
  std::set<fs::path> linked;
  std::error_code failed;
  for (const std::string_view link : {kLatest, kLowestLoss}) linked.insert(fs::read_symlink(path_ / link, failed));
  std::vector<FoundCheckpoint> spare;
  const auto count = std::ssize(found);
  for (int64_t i = 0; i < count - recent; ++i) {
    const FoundCheckpoint& each = found[static_cast<size_t>(i)];
    if (linked.contains(each.path.filename())) continue;
    if (retention.every && each.step % *retention.every == 0) continue;
    spare.push_back(each);
  }
  return spare;
}

// Under a name that is none of a checkpoint: half removed it must not be taken for one.
void CheckpointFolder::remove(const FoundCheckpoint& checkpoint) const {
  const fs::path removed = path_ / fmt::format(".{}{}", checkpoint.path.filename().string(), kRemoved);
  if (::rename(checkpoint.path.c_str(), removed.c_str()) != 0) throw system_failure("remove", checkpoint.path, errno);
  std::error_code failed;
  fs::remove_all(removed, failed);
  if (failed) throw system_failure("remove", removed, failed.value());
}

void CheckpointFolder::clean(const Retention& retention) const {
  if (!retention.recent) return;
  for (const FoundCheckpoint& each : spare(*retention.recent, retention)) remove(each);
}

void CheckpointFolder::make_room(int64_t step, uint64_t bytes, const Retention& retention) const {
  std::optional<uint64_t> free = free_(path_);
  if (!free || *free >= bytes) return;
  const uint64_t before = *free;
  std::string removed;
  if (retention.recent) {
    // The new one is the newest then, if it comes to be.
    for (const FoundCheckpoint& each : spare(std::max<int64_t>(*retention.recent - 1, 1), retention)) {
      remove(each);
      removed += (removed.empty() ? "" : ", ") + each.path.filename().string();
      free = free_(path_);
      if (!free || *free >= bytes) break;
    }
  }
  if (!removed.empty()) {
    log::info(
        "{}: removed {} to make room for {}, which needs {} where {} were free (checkpoint.max_recent_checkpoints)",
        path_.string(), removed, checkpoint_name(step), format_bytes(bytes), format_bytes(before));
  }
  if (free && *free < bytes) {
    throw runtime_failure("{} needs {} and {} are free there", of_step(step).string(), format_bytes(bytes),
                          format_bytes(*free));
  }
}

}  // namespace sluice
