#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

Error system_failure(std::string_view action, const fs::path& path, int code) {
  const bool user = code == ENOENT || code == EACCES || code == EISDIR || code == ENOTDIR || code == EROFS;
  const std::string reason = std::generic_category().message(code);
  return {user ? ErrorKind::user : ErrorKind::runtime, fmt::format("cannot {} {}: {}", action, path.string(), reason)};
}

// An open descriptor.
class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags, std::string_view action, mode_t mode = 0)
      : number_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {
    if (number_ < 0) throw system_failure(action, path, errno);
  }
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int number() const { return number_; }
  // Closes now; the failures that only show here are reported.
  int close() { return ::close(std::exchange(number_, -1)); }

 private:
  int number_;
};

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

void write_all(const Descriptor& file, std::string_view contents, const fs::path& path) {
  while (!contents.empty()) {
    const ssize_t written = ::write(file.number(), contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw system_failure("write", path, errno);
    contents.remove_prefix(static_cast<std::size_t>(written));
  }
}

void sync_directory(const fs::path& path) {
  const fs::path directory = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const Descriptor handle(directory, O_RDONLY | O_DIRECTORY, "open directory");
  // Some file systems refuse to sync a directory; the rename itself is then all they offer.
  if (::fsync(handle.number()) != 0 && errno != EINVAL) throw system_failure("sync", directory, errno);
}

}  // namespace

std::string read_file(const fs::path& path, std::size_t max_bytes) {
  const Descriptor file(path, O_RDONLY, "open");
  const struct stat status = status_of(file, path);
  std::string text;
  if (S_ISREG(status.st_mode)) text.reserve(std::min(static_cast<std::size_t>(status.st_size), max_bytes));
  std::array<char, 1 << 16> buffer{};
  while (true) {
    const ssize_t count = ::read(file.number(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw system_failure("read", path, errno);
    if (count == 0) return text;
    if (text.size() + static_cast<std::size_t>(count) > max_bytes) {
      throw user_error("{} is larger than the {} bytes it may have", path.string(), max_bytes);
    }
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
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
  if (open->file.close() != 0) throw system_failure("close", temporary, errno);
  if (::rename(temporary.c_str(), path_.c_str()) != 0) throw system_failure("replace", path_, errno);
  open->temporary.release();
  sync_directory(path_);
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
