#include "base/descriptor.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace sluice {

namespace fs = std::filesystem;

Error system_failure(std::string_view action, const fs::path& path, int code) {
  const bool user = code == ENOENT || code == EACCES || code == EISDIR || code == ENOTDIR || code == EROFS ||
                    code == ELOOP || code == ENAMETOOLONG || code == ENXIO;
  const std::string reason = std::generic_category().message(code);
  return {user ? ErrorKind::user : ErrorKind::runtime, fmt::format("cannot {} {}: {}", action, path.string(), reason)};
}

Descriptor::Descriptor(const fs::path& path, int flags, std::string_view action, mode_t mode)
    : number_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {
  if (number_ < 0) throw system_failure(action, path, errno);
}

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

Descriptor::Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(number_, other.number_);
  return *this;
}

int Descriptor::close() {
  return ::close(std::exchange(number_, -1)) == 0 ? 0 : errno;
}

void write_all(const Descriptor& file, std::string_view contents, const fs::path& path) {
  while (!contents.empty()) {
    const ssize_t written = ::write(file.number(), contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EFAULT) {
      throw runtime_failure("{} cannot be completed: what is to be written there cannot be read", path.string())
          .advise(
              "the file it comes from was cut short meanwhile, or its disk fails; with that file whole, start again");
    }
    if (written < 0) throw system_failure("write", path, errno);
    contents.remove_prefix(static_cast<std::size_t>(written));
  }
}

void sync_directory_of(const fs::path& path) {
  const fs::path directory = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const Descriptor handle(directory, O_RDONLY | O_DIRECTORY, "open directory");
  // Some file systems refuse to sync a directory; the rename itself is then all they offer.
  if (::fsync(handle.number()) != 0 && errno != EINVAL) throw system_failure("sync", directory, errno);
}

}  // namespace sluice
