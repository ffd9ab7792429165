#include "cli/interrupt.h"

#include <fmt/core.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <ctime>
#include <utility>

#include "base/clock.h"
#include "base/log.h"

namespace sluice::cli {
namespace {

// Those that are not ignored.
sigset_t wishes(const std::vector<int>& signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) {
    struct sigaction action{};
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) sigaddset(&set, signal);
  }
  return set;
}

std::string name_of(int signal) {
  if (signal == SIGINT) return "Ctrl-C";
  return signal == SIGHUP ? "a closed terminal (SIGHUP)" : fmt::format("SIG{}", sigabbrev_np(signal));
}

}  // namespace

Interrupt::Interrupt(Answers answers, std::vector<int> signals)
    : answers_(std::move(answers)), signals_(std::move(signals)) {
  signals_.insert(signals_.end(), {SIGINT, SIGTERM, SIGHUP});
  const sigset_t set = wishes(signals_);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  watcher_ = std::jthread([this](const std::stop_token& ended) { watch(ended); });
}

Interrupt::~Interrupt() {
  watcher_.request_stop();
  watcher_.join();
  if (std::uncaught_exceptions() > exceptions_) return;
  const sigset_t set = wishes(signals_);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void Interrupt::watch(const std::stop_token& ended) {
  const sigset_t set = wishes(signals_);
  const timespec moment{.tv_sec = 0, .tv_nsec = 50'000'000};
  Stopwatch since_first;
  while (!ended.stop_requested()) {
    const int signal = sigtimedwait(&set, nullptr, &moment);
    if (signal < 0) continue;
    // One wish may come twice: timeout and schedulers signal a program, and its group too.
    constexpr double kOneWish = 0.5;
    if (signal_ == signal && since_first.seconds() < kOneWish) continue;
    if (signal_ == 0) since_first.restart();
    int none = 0;
    if (!signal_.compare_exchange_strong(none, signal) || !answers_.asked) {
      const std::string lost = answers_.give_up ? answers_.give_up() : "";
      // Who reads our output may have stopped doing so: the message then has to wait, the end has not.
      ::alarm(1);
      if (!lost.empty()) log::error("ended by {}: {}", name_of(signal), lost);
      // As if nobody had listened.
      pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
      raise(signal);
    }
    log::info("{}", answers_.asked());
  }
}

}  // namespace sluice::cli
