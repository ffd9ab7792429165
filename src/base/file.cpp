#include "base/file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/descriptor.h"
#include "base/log.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

// Removes the temporary file unless it was renamed into place.
class Temporary {
 public:
  explicit Temporary(fs::path path) : path_(std::move(path)) {}
  ~Temporary() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;

  const fs::path& path() const { return path_; }
  void release() { path_.clear(); }

 private:
  fs::path path_;
};

struct stat status_of(const Descriptor& file, const fs::path& path) {
  struct stat status{};
  if (::fstat(file.number(), &status) != 0) throw system_failure("examine", path, errno);
  if (S_ISDIR(status.st_mode)) throw system_failure("read", path, EISDIR);
  return status;
}

}  // namespace

namespace {

constexpr int kGraceMs = 500;  // for a program that is about to open the other end of a pipe, or is slow to write

const char* kind_of(mode_t mode) {
  return S_ISFIFO(mode) ? "a pipe" : S_ISSOCK(mode) ? "a socket" : S_ISBLK(mode) ? "a block device" : "a device";
}

// Whether a stream has an end: a pipe when its writer ends, a terminal when a person says so, /dev/null at once.
bool ends(const struct stat& status, int number) {
  const bool null = S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3);
  return S_ISFIFO(status.st_mode) || null || ::isatty(number) == 1;
}

// Until there is something to read, or no writer left; `told`: a person knows what is waited for.
void wait_for_input(const Descriptor& file, const fs::path& path, bool& told) {
  pollfd wanted{.fd = file.number(), .events = POLLIN, .revents = 0};
  if (::poll(&wanted, 1, told ? -1 : kGraceMs) != 0 || told) return;
  log::info("waiting for the input from {}", path.string());
  told = true;
}

std::string read_all(const Descriptor& file, const struct stat& status, const fs::path& path, std::size_t max_bytes) {
  std::string text;
  if (S_ISREG(status.st_mode)) text.reserve(std::min(static_cast<std::size_t>(status.st_size), max_bytes));
  std::array<char, 1 << 16> buffer{};
  bool told = false;
  while (true) {
    const ssize_t count = ::read(file.number(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      wait_for_input(file, path, told);
      continue;
    }
    if (count < 0) throw system_failure("read", path, errno);
    if (count == 0) return text;
    if (text.size() + static_cast<std::size_t>(count) > max_bytes) {
      throw user_error("{} is larger than the {} bytes it may have", path.string(), max_bytes);
    }
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace

std::string read_file(const fs::path& path, std::size_t max_bytes) {
  // Without O_NONBLOCK a pipe that nobody writes to would let open() wait.
  const Descriptor file(path, O_RDONLY | O_NONBLOCK, "open");
  const struct stat status = status_of(file, path);
  if (!S_ISREG(status.st_mode)) {
    throw user_error("cannot read {}: it is {}, not a file", path.string(), kind_of(status.st_mode));
  }
  return read_all(file, status, path, max_bytes);
}

std::string read_input(const fs::path& path, std::size_t max_bytes) {
  const Descriptor file(path, O_RDONLY | O_NONBLOCK, "open");
  const struct stat status = status_of(file, path);
  if (S_ISREG(status.st_mode)) return read_all(file, status, path, max_bytes);
  if (!ends(status, file.number())) {
    throw user_error("cannot read {}: it is {}, not a file", path.string(), kind_of(status.st_mode));
  }
  if (S_ISFIFO(status.st_mode)) {
    pollfd wanted{.fd = file.number(), .events = POLLIN, .revents = 0};
    ::poll(&wanted, 1, kGraceMs);
  }
  std::string text = read_all(file, status, path, max_bytes);
  if (text.empty() && S_ISFIFO(status.st_mode)) {
    throw user_error("nothing came from the pipe {}: no program writes to it", path.string())
        .advise("start the program that writes to it first, or give a file");
  }
  return text;
}

std::optional<FileId> file_id(const fs::path& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return FileId{status.st_dev, status.st_ino};
}

bool is_mount_point(const fs::path& directory) {
  struct statx status{};
  if (::statx(AT_FDCWD, directory.c_str(), 0, 0, &status) != 0) return false;
  if ((status.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) != 0) {
    return (status.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
  }
  // A kernel that does not say.
  const auto here = file_id(directory), above = file_id(directory / "..");
  return here && above && (here->device != above->device || *here == *above);
}

std::optional<uint64_t> free_bytes(const fs::path& path) {
  fs::path at = path.is_absolute() ? path : "." / path;
  struct statvfs status{};
  while (::statvfs(at.c_str(), &status) != 0) {
    if (!at.has_relative_path()) return std::nullopt;
    at = at.parent_path();
  }
  // Some file systems do not say.
  if (status.f_blocks == 0) return std::nullopt;
  return uint64_t{status.f_bavail} * status.f_frsize;
}

// Closed before it is removed, where it is.
struct AtomicFile::Open {
  explicit Open(const fs::path& path) : temporary(path), file(path, O_WRONLY | O_CREAT | O_EXCL, "create", 0666) {}

  Temporary temporary;
  Descriptor file;
};

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)) {
  fs::path temporary = fmt::format("{}.tmp-{}", path_.string(), ::getpid());
  // A file left under this name by a process that died is not ours to keep.
  ::unlink(temporary.c_str());
  open_ = std::make_unique<Open>(temporary);
}

AtomicFile::~AtomicFile() = default;
AtomicFile::AtomicFile(AtomicFile&& other) noexcept = default;

void AtomicFile::append(std::string_view contents) {
  require(open_ != nullptr, "{} is written after its end", path_.string());
  write_all(open_->file, contents, open_->temporary.path());
}

void AtomicFile::append(std::span<const std::byte> contents) {
  append(std::string_view(reinterpret_cast<const char*>(contents.data()), contents.size()));
}

void AtomicFile::commit() {
  require(open_ != nullptr, "{} is ended twice", path_.string());
  const std::unique_ptr<Open> open = std::move(open_);
  const fs::path& temporary = open->temporary.path();
  if (::fsync(open->file.number()) != 0) throw system_failure("sync", temporary, errno);
  if (const int failure = open->file.close(); failure != 0) throw system_failure("close", temporary, failure);
  if (::rename(temporary.c_str(), path_.c_str()) != 0) throw system_failure("replace", path_, errno);
  open->temporary.release();
  sync_directory_of(path_);
}

void write_file_atomic(const fs::path& path, std::string_view contents) {
  AtomicFile file(path);
  file.append(contents);
  file.commit();
}

MappedFile::MappedFile(const fs::path& path) {
  // A FIFO without a writer would let open wait.
  const Descriptor file(path, O_RDONLY | O_NONBLOCK, "open");
  const struct stat status = status_of(file, path);
  if (!S_ISREG(status.st_mode)) throw user_error("cannot map {}: it is not a regular file", path.string());
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) return;  // mmap refuses length 0
  void* const address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.number(), 0);
  if (address == MAP_FAILED) throw system_failure("map", path, errno);
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace sluice
