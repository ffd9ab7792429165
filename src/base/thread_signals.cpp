#include "base/thread_signals.h"

#include <csignal>

namespace sluice {

void block_signals() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

}  // namespace sluice
