#include "cli/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <system_error>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"

namespace sluice::cli {
namespace {

constexpr size_t narrow_page = 80;
constexpr size_t wide_page = 100;

// Of a terminal; some do not say how wide they are.
size_t terminal_width(int descriptor) {
  winsize size{};
  return ::ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 ? narrow_page : size.ws_col;
}

// What COLUMNS asks for, 0 if nothing.
size_t wanted_width() {
  const char* value = std::getenv("COLUMNS");
  if (value == nullptr) return 0;
  const std::string_view text = value;
  size_t columns = 0;
  const auto [end, failure] = std::from_chars(text.begin(), text.end(), columns);
  return failure == std::errc() && end == text.end() ? columns : 0;
}

// Whether stdout is a pipe that nobody reads any more.
bool reader_gone() {
  pollfd output{.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
  return ::poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0;
}

}  // namespace

size_t watched_width() {
  const char* terminal = std::getenv("TERM");
  if (::isatty(STDERR_FILENO) != 1 || terminal == nullptr || std::string_view(terminal) == "dumb") return 0;
  return terminal_width(STDERR_FILENO);
}

size_t page_width() {
  size_t columns = wanted_width();
  if (columns == 0) columns = prints_to_terminal() ? terminal_width(STDOUT_FILENO) : wide_page;
  return std::clamp(columns, narrow_page, wide_page);
}

void keep_standard_descriptors() {
  // For reading alone: what is printed to a closed stdout or stderr still fails.
  for (int number = 0; number <= STDERR_FILENO; ++number) {
    if (::fcntl(number, F_GETFD) < 0) ::open("/dev/null", O_RDONLY);
  }
}

bool prints_to_terminal() {
  return ::isatty(STDOUT_FILENO) == 1;
}

void print(std::string_view text) {
  print_bytes(printable(text));
}

void print_bytes(std::string_view bytes) {
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
}

void print_error(std::string_view text) {
  std::fflush(stdout);
  const size_t width = watched_width();
  const bool colour = width > 0 && std::getenv("NO_COLOR") == nullptr;
  constexpr std::string_view label = "error:";
  std::string shown = fmt::format("{} {}", label, printable(text));
  if (width > 0) shown = wrap(shown, width, label.size() + 1);
  const std::string line =
      fmt::format("{}{}{}{}\n", colour ? "\033[1;31m" : "", label, colour ? "\033[0m" : "", shown.substr(label.size()));
  std::fwrite(line.data(), 1, line.size(), stderr);  // fmt::print would throw where nothing can be written
}

void outlive_readers() {
  std::signal(SIGPIPE, SIG_IGN);
}

void finish_output() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  if (reader_gone()) {
    log::warn("stdout was closed before the end: not all that was printed has arrived");
    return;
  }
  throw runtime_failure("cannot write the results: {}", std::generic_category().message(errno));
}

}  // namespace sluice::cli
