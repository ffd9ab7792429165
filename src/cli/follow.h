// What a process without rank 0 does while the first one trains, says and writes.
#pragma once

#include <vector>

#include "checkpoint/manifest.h"
#include "cli/job_processes.h"
#include "training/training.h"

namespace sluice::cli {

// Signals that ask a run of this configuration to save and end, beside those that ask any to end.
std::vector<int> listened_to(const Config& config);

// Trains the ranks of this process. The first process says meanwhile, by two texts (JobProcesses::from_first), where
// the run is saved and which checkpoint it goes on from; empty: nowhere, and none. `exports`: the run has something to
// do when all of its steps are made. Returns the exit code.
int follow(const RunSpec& resolved, TrainingJob job, const LaunchOptions& session, const Config& config,
           const Manifest& run, bool exports, const JobProcesses& processes);

}  // namespace sluice::cli
