#include "cli/interrupt.h"

#include <unistd.h>

#include <csignal>
#include <ctime>
#include <utility>

#include "base/log.h"

namespace sluice::cli {
namespace {

// Those that are not ignored.
sigset_t wishes() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action{};
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) sigaddset(&set, signal);
  }
  return set;
}

const char* name_of(int signal) {
  return signal == SIGINT ? "Ctrl-C" : signal == SIGHUP ? "a closed terminal (SIGHUP)" : "SIGTERM";
}

}  // namespace

Interrupt::Interrupt(Answers answers) : answers_(std::move(answers)) {
  const sigset_t set = wishes();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  watcher_ = std::jthread([this](const std::stop_token& ended) { watch(ended); });
}

Interrupt::~Interrupt() {
  watcher_.request_stop();
  watcher_.join();
  const sigset_t set = wishes();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void Interrupt::watch(const std::stop_token& ended) {
  const sigset_t set = wishes();
  const timespec moment{.tv_sec = 0, .tv_nsec = 50'000'000};
  while (!ended.stop_requested()) {
    const int signal = sigtimedwait(&set, nullptr, &moment);
    if (signal < 0) continue;
    if (requested_.exchange(true) || !answers_.asked) {
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
