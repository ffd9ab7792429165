// Ctrl-C as a wish: the first asks the run to end after its step, the second ends the process at once.
#pragma once

#include <atomic>
#include <thread>

namespace sluice::cli {

// To be made before the threads it should speak for; they inherit that the signal is not theirs.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  Interrupt(Interrupt&&) = delete;
  Interrupt& operator=(Interrupt&&) = delete;

  bool requested() const { return requested_; }

 private:
  void watch(const std::stop_token& ended);

  std::atomic<bool> requested_ = false;
  std::jthread watcher_;
};

}  // namespace sluice::cli
