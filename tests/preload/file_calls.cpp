// Loaded into the program in front of the C library (LD_PRELOAD): kills it at one of its calls to the file system, or
// lets calls fail as a full or broken disk does. The environment says at which:
//   SLUICE_CALLS_UNDER   a path, without links in it; only what it names and what is below count
//   SLUICE_CALLS         the kinds that count, of read, create, write, sync, rename, link, remove and mkdir:
//   "write,sync" SLUICE_CALLS_FIRST   the first one that is met, counted from 1; 0: none SLUICE_CALLS_LAST    the last
//   one SLUICE_CALLS_THEN    "kill" before the call, "kill-after" it, or the errno that it fails with
//   SLUICE_CALLS_COUNT   a file that the number of calls is written to when the program ends; unset: nothing is written
// A process without SLUICE_CALLS is left alone.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

std::string_view setting(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

long number(const char* name) {
  return std::strtol(std::string(setting(name)).c_str(), nullptr, 10);
}

// Shared by all threads of the process.
std::atomic<long>& met() {
  static std::atomic<long> count = 0;
  return count;
}

bool listed(std::string_view kind) {
  std::string_view kinds = setting("SLUICE_CALLS");
  while (!kinds.empty()) {
    const size_t end = std::min(kinds.find(','), kinds.size());
    if (kinds.substr(0, end) == kind) return true;
    kinds.remove_prefix(std::min(end + 1, kinds.size()));
  }
  return false;
}

std::string target_of(const std::string& link) {
  std::array<char, PATH_MAX> buffer{};
  const ssize_t length = ::readlink(link.c_str(), buffer.data(), buffer.size());
  return length < 0 ? std::string() : std::string(buffer.data(), static_cast<size_t>(length));
}

std::string path_of(int descriptor) {
  return target_of("/proc/self/fd/" + std::to_string(descriptor));
}

std::string path_at(int directory, const char* path) {
  if (path[0] == '/') return path;
  return (directory == AT_FDCWD ? target_of("/proc/self/cwd") : path_of(directory)) + "/" + path;
}

bool counts(std::string_view kind, std::string_view path) {
  if (!listed(kind)) return false;
  const std::string_view under = setting("SLUICE_CALLS_UNDER");
  return path.starts_with(under) && (path.size() == under.size() || path[under.size()] == '/');
}

template <class Result>
Result failed(int code) {
  errno = code;
  return static_cast<Result>(-1);
}

// Carries a call out, unless it is one of those that are met.
template <class Call>
auto meet(std::string_view kind, const std::string& path, Call call) -> decltype(call()) {
  if (!counts(kind, path)) return call();
  const long at = ++met();
  if (at < number("SLUICE_CALLS_FIRST") || at > number("SLUICE_CALLS_LAST")) return call();
  const std::string_view then = setting("SLUICE_CALLS_THEN");
  if (!then.starts_with("kill")) return failed<decltype(call())>(static_cast<int>(number("SLUICE_CALLS_THEN")));
  if (then == "kill-after") call();
  ::kill(::getpid(), SIGKILL);
  while (true) ::pause();
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

std::string_view kind_of_open(int flags) {
  return (flags & O_CREAT) != 0 ? "create" : "read";
}

mode_t mode_of(int flags, va_list& list) {
  return (flags & O_CREAT) != 0 ? va_arg(list, mode_t) : mode_t{0};
}

struct AtTheEnd {
  AtTheEnd() = default;
  AtTheEnd(const AtTheEnd&) = delete;
  AtTheEnd& operator=(const AtTheEnd&) = delete;
  AtTheEnd(AtTheEnd&&) = delete;
  AtTheEnd& operator=(AtTheEnd&&) = delete;
  ~AtTheEnd() {
    const std::string file(setting("SLUICE_CALLS_COUNT"));
    if (file.empty()) return;
    if (std::FILE* const out = std::fopen(file.c_str(), "w"); out != nullptr) {
      std::fprintf(out, "%ld\n", met().load());
      std::fclose(out);
    }
  }
};

const AtTheEnd at_the_end;

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  return meet(kind_of_open(flags), path_at(AT_FDCWD, path),
              [&] { return next<int(const char*, int, mode_t)>("open")(path, flags, mode); });
}

// What the removal of directories walks them with.
int openat(int directory, const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  return meet(kind_of_open(flags), path_at(directory, path),
              [&] { return next<int(int, const char*, int, mode_t)>("openat")(directory, path, flags, mode); });
}

ssize_t write(int file, const void* from, size_t bytes) {
  return meet("write", path_of(file),
              [&] { return next<ssize_t(int, const void*, size_t)>("write")(file, from, bytes); });
}

ssize_t pwritev(int file, const iovec* pieces, int count, off_t offset) {
  return meet("write", path_of(file),
              [&] { return next<ssize_t(int, const iovec*, int, off_t)>("pwritev")(file, pieces, count, offset); });
}

int fallocate(int file, int mode, off_t offset, off_t bytes) {
  return meet("write", path_of(file),
              [&] { return next<int(int, int, off_t, off_t)>("fallocate")(file, mode, offset, bytes); });
}

int fsync(int file) {
  return meet("sync", path_of(file), [&] { return next<int(int)>("fsync")(file); });
}

int rename(const char* from, const char* to) noexcept {
  return meet("rename", path_at(AT_FDCWD, to), [&] { return next<int(const char*, const char*)>("rename")(from, to); });
}

int renameat2(int from_directory, const char* from, int to_directory, const char* to, unsigned flags) noexcept {
  return meet("rename", path_at(to_directory, to), [&] {
    return next<int(int, const char*, int, const char*, unsigned)>("renameat2")(from_directory, from, to_directory, to,
                                                                                flags);
  });
}

int symlink(const char* target, const char* path) noexcept {
  return meet("link", path_at(AT_FDCWD, path),
              [&] { return next<int(const char*, const char*)>("symlink")(target, path); });
}

int unlink(const char* path) noexcept {
  return meet("remove", path_at(AT_FDCWD, path), [&] { return next<int(const char*)>("unlink")(path); });
}

int unlinkat(int directory, const char* path, int flags) noexcept {
  return meet("remove", path_at(directory, path),
              [&] { return next<int(int, const char*, int)>("unlinkat")(directory, path, flags); });
}

int remove(const char* path) noexcept {
  return meet("remove", path_at(AT_FDCWD, path), [&] { return next<int(const char*)>("remove")(path); });
}

int rmdir(const char* path) noexcept {
  return meet("remove", path_at(AT_FDCWD, path), [&] { return next<int(const char*)>("rmdir")(path); });
}

int mkdir(const char* path, mode_t mode) noexcept {
  return meet("mkdir", path_at(AT_FDCWD, path), [&] { return next<int(const char*, mode_t)>("mkdir")(path, mode); });
}

}  // extern "C"
