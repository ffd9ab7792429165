// Ctrl-C, a closed terminal or another program's SIGTERM or SIGUSR1 as a wish: the first asks the run to end when that
// loses nothing, the second ends the process at once (the same one again within half a second is the first). Where a
// signal was ignored when the program began (nohup, jobs in the background) it stays ignored.
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <vector>

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
  // given on a thread of its own. `signals` are listened to beside SIGINT, SIGTERM, SIGHUP.
  explicit Interrupt(Answers answers, std::vector<int> signals = {});
  // Where an exception ends the program signals stay unheard until it has said why: its launcher may end it meanwhile.
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  Interrupt(Interrupt&&) = delete;
  Interrupt& operator=(Interrupt&&) = delete;

  bool requested() const { return signal_ != 0; }
  // The first signal that came; 0: none has.
  int signal() const { return signal_; }

 private:
  void watch(const std::stop_token& ended);

  Answers answers_;
  std::vector<int> signals_;
  std::atomic<int> signal_ = 0;
  int exceptions_ = std::uncaught_exceptions();
  std::jthread watcher_;
};

}  // namespace sluice::cli
