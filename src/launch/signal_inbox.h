// The signals that a launcher passes on, as something to wait for beside its pipes, and what it must tell its children
// about how signals were before.
#pragma once

#include <csignal>
#include <vector>

#include "base/descriptor.h"

namespace sluice::launch {

// While alive, the signals that a launcher passes on and SIGCHLD wait in descriptor() instead of ending the process,
// and a closed pipe is an error of its write. Signals that were ignored stay so (nohup, jobs in the background). To be
// made by a process with one thread, or before its others.
class SignalInbox {
 public:
  SignalInbox();
  ~SignalInbox();
  SignalInbox(const SignalInbox&) = delete;
  SignalInbox& operator=(const SignalInbox&) = delete;
  SignalInbox(SignalInbox&&) = delete;
  SignalInbox& operator=(SignalInbox&&) = delete;

  int descriptor() const { return inbox_.number(); }
  // All that have come, without SIGCHLD.
  std::vector<int> take();

  // As they were before.
  const sigset_t& mask() const { return mask_; }
  const struct sigaction& on_broken_pipe() const { return on_broken_pipe_; }

 private:
  Descriptor inbox_;
  sigset_t mask_{};
  struct sigaction on_broken_pipe_{}, on_child_{};
};

}  // namespace sluice::launch
