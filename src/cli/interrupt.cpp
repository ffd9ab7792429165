#include "cli/interrupt.h"

#include <csignal>
#include <ctime>

#include "base/log.h"

namespace sluice::cli {
namespace {

sigset_t wishes() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

Interrupt::Interrupt() {
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
    if (requested_.exchange(true)) {
      // As if nobody had listened.
      pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
      raise(signal);
    }
    log::info("ending after this step; again: at once");
  }
}

}  // namespace sluice::cli
