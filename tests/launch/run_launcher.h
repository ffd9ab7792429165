// A launcher in a process of its own, whose signals, output and end a test sees.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "launch/local_plan.h"

namespace sluice::launch {

struct Ended {
  int code = -1;  // 128 + the signal that ended the launcher itself
  std::string out, err;
};

class RunningLauncher {
 public:
  enum class Output { kept, terminal, full_disk };

  // Every process runs `script` with /bin/sh.
  RunningLauncher(const std::string& script, const LocalPlan& plan, double grace_seconds = 5,
                  Output output = Output::kept);
  // Kills it.
  ~RunningLauncher();
  RunningLauncher(const RunningLauncher&) = delete;
  RunningLauncher& operator=(const RunningLauncher&) = delete;
  RunningLauncher(RunningLauncher&&) = delete;
  RunningLauncher& operator=(RunningLauncher&&) = delete;

  // Until `text` has been written so often to stdout; fails after some seconds.
  void wait_for(const std::string& text, int times = 1);
  void send(int signal) const;
  // Until it has stopped.
  void wait_stopped() const;
  // Does not read until it has ended, or closes its stdout's reading end.
  void stop_reading() { reads_ = false; }
  void close_reader();
  Ended wait();

  pid_t pid() const { return pid_; }

 private:
  void read_some(int milliseconds);

  pid_t pid_ = 0;
  int out_ = -1, err_ = -1;  // of a terminal out_ is both
  bool reads_ = true;
  Ended ended_;
};

Ended run_launcher(const std::string& script, const LocalPlan& plan, double grace_seconds = 5,
                   RunningLauncher::Output output = RunningLauncher::Output::kept);

// The processes that the ended launchers of this program have left, which then are its children; they are gone after
// it.
int take_orphans(double patience_seconds = 0);

}  // namespace sluice::launch
