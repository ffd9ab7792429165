#include "launch/signal_inbox.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "base/error.h"

namespace sluice::launch {
namespace {

// What people, terminals and schedulers send.
constexpr int kPassedOn[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP};

sigset_t heeded() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : kPassedOn) {
    struct sigaction action{};
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) sigaddset(&set, signal);
  }
  sigaddset(&set, SIGCHLD);
  return set;
}

struct sigaction set_action(int signal, void (*handler)(int)) {
  struct sigaction action{}, before{};
  action.sa_handler = handler;
  sigaction(signal, &action, &before);
  return before;
}

}  // namespace

SignalInbox::SignalInbox() : inbox_(-1) {
  const sigset_t set = heeded();
  inbox_ = Descriptor(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (inbox_.number() < 0) {
    throw runtime_failure("cannot wait for signals: {}", std::generic_category().message(errno));
  }
  on_broken_pipe_ = set_action(SIGPIPE, SIG_IGN);
  // Where it was ignored nobody could wait for children.
  on_child_ = set_action(SIGCHLD, SIG_DFL);
  pthread_sigmask(SIG_BLOCK, &set, &mask_);
}

SignalInbox::~SignalInbox() {
  take();
  pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
  sigaction(SIGCHLD, &on_child_, nullptr);
  sigaction(SIGPIPE, &on_broken_pipe_, nullptr);
}

std::vector<int> SignalInbox::take() {
  std::vector<int> signals;
  signalfd_siginfo one{};
  while (::read(inbox_.number(), &one, sizeof one) == sizeof one) {
    if (one.ssi_signo != SIGCHLD) signals.push_back(static_cast<int>(one.ssi_signo));
  }
  return signals;
}

}  // namespace sluice::launch
