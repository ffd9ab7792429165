#include "launch/launcher_output.h"

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/clock.h"

namespace sluice::launch {

bool is_terminal(int number) {
  const char* kind = std::getenv("TERM");
  return ::isatty(number) == 1 && kind != nullptr && std::string_view(kind) != "dumb";
}

LauncherOutput::LauncherOutput(bool shared)
    : queues_{OutputQueue(STDOUT_FILENO, shared && is_terminal(STDOUT_FILENO)),
              OutputQueue(STDERR_FILENO, shared && is_terminal(STDERR_FILENO))} {}

void LauncherOutput::write_some() {
  for (OutputQueue& queue : queues_) queue.write_some();
}

void LauncherOutput::wait_no_longer() {
  for (OutputQueue& queue : queues_) queue.wait_no_longer();
}

bool LauncherOutput::waits() const {
  return std::ranges::any_of(queues_, [](const OutputQueue& queue) { return !queue.empty(); });
}

void LauncherOutput::say(log::Level level, const std::string& text) {
  write_some();
  OutputQueue& err = queues_[1];
  if (!err.ready()) {
    return err.add(fmt::format("{}: {}\n", level == log::Level::error ? "error" : "warning", text), false);
  }
  if (err.over_line()) log::set_line_shown(true);
  log::write(level, text);
}

bool LauncherOutput::finish(SignalInbox& inbox, bool signalled) {
  Stopwatch since_signal;
  while (waits() && !(signalled && since_signal.seconds() > kLastChance)) {
    std::vector<pollfd> all{{.fd = inbox.descriptor(), .events = POLLIN, .revents = 0}};
    for (const OutputQueue& queue : queues_) {
      if (!queue.empty()) all.push_back({.fd = queue.number(), .events = POLLOUT, .revents = 0});
    }
    constexpr int kMoment = 50;  // milliseconds
    ::poll(all.data(), all.size(), signalled ? kMoment : -1);
    write_some();
    if (inbox.take().empty() || signalled) continue;
    signalled = true;
    since_signal.restart();
  }
  return !inbox.take().empty() || signalled;
}

int LauncherOutput::with_losses(int code) {
  for (const OutputQueue& queue : queues_) {
    const char* name = queue.number() == STDOUT_FILENO ? "stdout" : "stderr";
    if (queue.abandoned() || !queue.empty()) {
      say(log::Level::warn, fmt::format("{} was not read to its end: not all that was printed has arrived", name));
    } else if (queue.error() != 0) {
      say(log::Level::error,
          fmt::format("not all of {} could be written: {}", name, std::generic_category().message(queue.error())));
      if (code == 0) code = 1;
    }
  }
  return code;
}

}  // namespace sluice::launch
