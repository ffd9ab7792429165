#include "base/output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <system_error>

namespace sluice {
namespace {

namespace fs = std::filesystem;

// N of /proc/self/fd/N, however that directory is called; -1 for other paths.
int own_descriptor(const fs::path& path) {
  std::error_code failed;
  const std::string name = path.filename().string();
  int number = -1;
  const auto [end, wrong] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (wrong != std::errc() || end != name.data() + name.size() || number < 0) return -1;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  return fs::equivalent(folder, "/proc/self/fd", failed) && !failed ? number : -1;
}

Descriptor open_place(const OutputPlace& place, bool replace) {
  using Kind = OutputPlace::Kind;
  if (place.descriptor >= 0) {
    // A second opening of a file would begin at its start.
    const int copy = ::fcntl(place.descriptor, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) throw system_failure("write", place.path, errno);
    return Descriptor(copy);
  }
  if (place.kind != Kind::stream) {
    // A file that has other names keeps its contents under those.
    if (replace && place.kind == Kind::file) ::unlink(place.path.c_str());
    return {place.path, O_WRONLY | O_CREAT | O_EXCL, "create", 0666};
  }
  // A pipe without a reader would let open() wait.
  const int number = ::open(place.path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (number < 0 && errno == ENXIO) {
    throw user_error("cannot write {}: no program reads this pipe", place.path.string())
        .advise("start the program that reads it first");
  }
  if (number < 0) throw system_failure("write", place.path, errno);
  Descriptor file(number);
  const int flags = ::fcntl(number, F_GETFL);
  ::fcntl(number, F_SETFL, flags & ~O_NONBLOCK);
  return file;
}

}  // namespace

OutputPlace output_place(const fs::path& path) {
  constexpr int kMostLinks = 40;
  using Kind = OutputPlace::Kind;
  OutputPlace place{.path = path};
  for (int links = 0;; ++links) {
    place.descriptor = own_descriptor(place.path);
    if (place.descriptor >= 0) {
      place.kind = Kind::stream;
      return place;
    }
    struct stat status{};
    if (::lstat(place.path.c_str(), &status) != 0) {
      if (errno == ENOENT) return place;
      throw system_failure("write", path, errno);
    }
    if (S_ISLNK(status.st_mode)) {
      if (links == kMostLinks) throw system_failure("write", path, ELOOP);
      std::error_code failed;
      const fs::path to = fs::read_symlink(place.path, failed);
      if (failed) throw system_failure("write", path, failed.value());
      place.path = to.is_absolute() ? to : place.path.parent_path() / to;
      continue;
    }
    const mode_t mode = status.st_mode;
    place.kind = S_ISREG(mode)                     ? Kind::file
                 : S_ISDIR(mode)                   ? Kind::directory
                 : S_ISFIFO(mode) || S_ISCHR(mode) ? Kind::stream
                                                   : Kind::other;
    if (place.kind == Kind::other) place.what = S_ISSOCK(mode) ? "a socket" : "a block device";
    return place;
  }
}

OutputStream::OutputStream(const OutputPlace& place, bool replace)
    : path_(place.path), file_(open_place(place, replace)) {}

}  // namespace sluice
