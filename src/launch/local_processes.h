// The processes of a run on one host, from their start to the end of the last: `sluice launch`.
//   Each is told who it is by torchrun's names (names_for). Process 0's output is passed on as it is, or is the
//   launcher's
// own where that is a terminal; lines of the others carry "[3] ", for only process 0 speaks while all goes well.
//   Signals are passed on to all. When a process fails, with an exit code other than 0 or by a signal, it is named, the
// others get SIGTERM, and after a time for saving SIGKILL, on all hosts (launch/hosts.h). A signal that was passed on
// is no failure: those that end by it end in their own time. What processes leave running in their groups ends with
// them, and all end with the launcher.
#pragma once

#include <string>
#include <vector>

#include "launch/hosts.h"
#include "launch/local_plan.h"

namespace sluice::launch {

// Runs `command`, the path of a program and its words, as the plan says, and starts all of it again as often as the
// plan allows after a failure: not after a signal that was passed on, nor after exit code 2, which the same command
// would end with again. Returns the exit code of the first that did not end with 0, of this host's, else of the run's:
// 128 + the signal where one ended it; and 1 where not all of the output could be written. A calling process that has
// threads must have blocked signals in them.
int run_processes(const std::vector<std::string>& command, const LocalPlan& plan, const LaunchTimes& times = {});

}  // namespace sluice::launch
