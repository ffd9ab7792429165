// A launcher in a process of its own, whose signals, output and end a test sees.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "launch/hosts.h"

namespace sluice::launch {

struct Ended {
  int code = -1;  // 128 + the signal that ended the launcher itself
  std::string out, err;
};

inline constexpr LaunchTimes kTestTimes{.grace_s = 5, .meeting_s = 15};

class RunningLauncher {
 public:
  enum class Output { kept, terminal, full_disk };

  // Every process runs `script` with /bin/sh.
  RunningLauncher(const std::string& script, const LocalPlan& plan, const LaunchTimes& times = kTestTimes,
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

Ended run_launcher(const std::string& script, const LocalPlan& plan, const LaunchTimes& times = kTestTimes,
                   RunningLauncher::Output output = RunningLauncher::Output::kept);

// A port of this machine that is free.
int free_port();

// Numbers of processes are none of a test's business: "(pid 17)" becomes "(pid )".
std::string without_pids(std::string text);

std::vector<std::string> sorted_lines(const std::string& text);

// The processes that the ended launchers of this program have left, which then are its children; they are gone after
// it.
int take_orphans(double patience_seconds = 0);

}  // namespace sluice::launch
