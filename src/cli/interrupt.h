// Ctrl-C, a closed terminal or another program's SIGTERM as a wish: the first asks the run to end when that loses
// nothing, the second ends the process at once. Where a signal was ignored when the program began (nohup, jobs in the
// background) it stays ignored.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

namespace sluice::cli {

class Interrupt {
 public:
  struct Answers {
    // To the first signal: what a person is told. Null: the first ends the process already.
    std::function<std::string()> asked = {};
    // Before the process ends: removes what is unfinished, and says what is lost with it (empty: nothing).
    std::function<std::string()> give_up = {};
  };

  // To be made before the threads it should speak for; they inherit that the signals are not theirs. The answers are
  // given on a thread of its own.
  explicit Interrupt(Answers answers);
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  Interrupt(Interrupt&&) = delete;
  Interrupt& operator=(Interrupt&&) = delete;

  bool requested() const { return requested_; }

 private:
  void watch(const std::stop_token& ended);

  Answers answers_;
  std::atomic<bool> requested_ = false;
  std::jthread watcher_;
};

}  // namespace sluice::cli
