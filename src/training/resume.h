// Which run a checkpoint is of, and what may be another way when it goes on.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/manifest.h"
#include "config/load.h"
#include "data/dataset.h"
#include "trainer/run_spec.h"

namespace sluice {

// What a checkpoint of this run says of it: every setting, the model's own fields, the data. Run state and files are
// left to who saves.
Manifest describe_run(const Config& config, const Dataset& dataset, const std::string& version,
                      const Dataset* validation = nullptr);
// Where the schedules of the run that a checkpoint is of end.
Horizon horizon_of(const RunState& state);

// How a run that would go on differs from the checkpoint where it may not: before is the checkpoint's. A run may have
// another length, learning rate, log, layout, local batch, recomputation, device and number of threads, another way of
// saving, and bf16 instead of fp32 weights, or the reverse, where the optimizer's state is fp32.
std::vector<config::Change> resume_conflicts(const Manifest& checkpoint, const Manifest& run);

// "optimizer.eps is 1e-08 in the checkpoint and 1e-06 here", for as many as a person reads.
std::string describe_conflicts(const std::vector<config::Change>& conflicts);

}  // namespace sluice
