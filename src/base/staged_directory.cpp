#include "base/staged_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>

namespace sluice {

namespace fs = std::filesystem;

namespace {

void remove_quietly(const fs::path& path) {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

}  // namespace

StagedDirectory::StagedDirectory(fs::path target, bool replace) : target_(std::move(target)), replace_(replace) {
  std::error_code failed;
  // "a/b/" is a/b, and "." has a name as well.
  if (!target_.has_filename()) target_ = target_.parent_path();
  if (target_.filename() == "." || target_.filename() == "..") target_ = fs::canonical(target_, failed);
  path_ = place_of(target_);
}

fs::path StagedDirectory::place_of(const fs::path& target) {
  constexpr size_t kLongestName = 200;  // of 255 that a file system takes
  const std::string name = target.filename().string().substr(0, kLongestName);
  return target.parent_path() / fmt::format(".{}.sluice-unfinished", name);
}

void StagedDirectory::restore() {
  const std::scoped_lock lock(mutex_);
  std::error_code failed;
  if (state_ != State::open || fs::exists(path_, failed)) return;
  make_parents();
  take_place();
}

StagedDirectory::~StagedDirectory() {
  abandon();
}

void StagedDirectory::begin() {
  const std::scoped_lock lock(mutex_);
  require(state_ == State::idle || state_ == State::abandoned, "{} is begun twice", target_.string());
  if (state_ == State::abandoned) throw runtime_failure("writing {} was given up", target_.string());
  state_ = State::open;
  make_parents();
  take_place();
  check_target();
  if (replace_) replaced_ = file_id(target_);
}

void StagedDirectory::make_parents() {
  std::vector<fs::path> missing;
  std::error_code failed;
  for (fs::path at = path_.parent_path(); !at.empty() && !fs::exists(at, failed); at = at.parent_path()) {
    missing.push_back(at);
  }
  for (auto at = missing.rbegin(); at != missing.rend(); ++at) {
    if (::mkdir(at->c_str(), 0777) == 0) {
      made_.push_back(*at);
    } else if (errno != EEXIST) {
      throw system_failure("create directory", *at, errno);
    }
  }
}

// The lock ends with the process, however that ends; file systems without locks do without.
void StagedDirectory::take_place() {
  while (true) {
    if (::mkdir(path_.c_str(), 0777) != 0 && errno != EEXIST) throw system_failure("create directory", path_, errno);
    Descriptor lock(path_, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, "open directory");
    if (::flock(lock.number(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      throw user_error("another run is writing {}", target_.string())
          .advise("name another directory, or wait for that run's end");
    }
    struct stat locked{};
    ::fstat(lock.number(), &locked);
    // Between making and locking it another run may have renamed or removed it.
    if (file_id(path_) != FileId{locked.st_dev, locked.st_ino}) continue;
    lock_ = std::move(lock);
    break;
  }
  std::error_code failed;
  for (const fs::directory_entry& entry : fs::directory_iterator(path_, failed)) fs::remove_all(entry.path(), failed);
  if (failed) throw system_failure("empty", path_, failed.value());
}

void StagedDirectory::check_target() const {
  std::error_code failed;
  const fs::file_status status = fs::symlink_status(target_, failed);
  if (!fs::exists(status)) return;
  if (!fs::is_directory(status)) throw user_error("cannot write {}: it is not a directory", target_.string());
  if (!replace_ && !fs::is_empty(target_, failed)) throw user_error("{} is not empty", target_.string());
}

// Empty where it worked, else the reason.
std::string StagedDirectory::rename_over() {
  const auto moved = [](const fs::path& from, const fs::path& to) { return ::rename(from.c_str(), to.c_str()) == 0; };
  const auto reason = [] { return std::generic_category().message(errno); };
  // An empty directory gives way.
  if (moved(path_, target_)) return {};
  const bool the_old_one = replaced_ && file_id(target_) == replaced_;
  if (!the_old_one) return errno == ENOTEMPTY || errno == EEXIST ? "it was made meanwhile" : reason();
  // The old one is whole until the new one has its name.
  if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0) {
    remove_quietly(path_);
    return {};
  }
  // Some file systems cannot exchange names.
  const fs::path old = path_.string() + "-old";
  if (!moved(target_, old)) return reason();
  if (!moved(path_, target_)) {
    std::string failure = reason();
    moved(old, target_);
    return failure;
  }
  remove_quietly(old);
  return {};
}

// What is complete is worth keeping, whatever stands in its way: under its own unfinished name, if nothing else works.
fs::path StagedDirectory::take_other_name() const {
  constexpr int kMostNames = 1000;
  for (int number = 2; number < kMostNames; ++number) {
    fs::path other = fmt::format("{}.{}", target_.string(), number);
    if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, other.c_str(), RENAME_NOREPLACE) == 0) return other;
    if (errno != EEXIST) break;
  }
  return path_;
}

void StagedDirectory::commit() {
  const std::scoped_lock lock(mutex_);
  require(state_ == State::open || state_ == State::abandoned, "{} is ended where it is not open", target_.string());
  if (state_ == State::abandoned) throw runtime_failure("writing {} was given up", target_.string());
  const std::string failure = rename_over();
  state_ = State::committed;
  if (failure.empty()) return sync_directory_of(target_);
  throw runtime_failure("cannot write {}: {}", target_.string(), failure)
      .advise(fmt::format("all that was to be there is complete in {}", take_other_name().string()));
}

void StagedDirectory::abandon() noexcept {
  const std::scoped_lock lock(mutex_);
  if (state_ == State::open) remove();
  if (state_ != State::committed) state_ = State::abandoned;
}

bool StagedDirectory::committed() const {
  const std::scoped_lock lock(mutex_);
  return state_ == State::committed;
}

void StagedDirectory::remove() noexcept {
  std::error_code failed;
  // Without the lock it is another run's. A thread that still writes may make one more file meanwhile.
  constexpr int kTries = 100;
  for (int i = 0; i < kTries && lock_.number() >= 0 && fs::exists(path_, failed); ++i) fs::remove_all(path_, failed);
  for (auto at = made_.rbegin(); at != made_.rend(); ++at) ::rmdir(at->c_str());
}

}  // namespace sluice
