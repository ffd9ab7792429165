// What a run on this machine will need and can reach, known before it starts: the trainer's own step on meta.
#pragma once

#include "launch/launcher.h"
#include "machine/machine_info.h"
#include "trainer/op_profile.h"
#include "twin/rank_plan.h"

namespace sluice {

struct RunForecast {
  double roofline_seconds = 0;  // of a step: each operation at the machine's peak or bandwidth, whichever binds
  uint64_t total_bytes = 0;     // of all ranks
  uint64_t host_bytes = 0;      // of those on this host
  double flops_per_step = 0;    // model FLOPs, by the family's formula
  Roof roof;                    // of a rank: its share of the machine
};

// Ranks share the machine, unless each has a GPU: each can reach its share of peak and bandwidth. Where processes are
// on several hosts, all are taken to be as this one.
RunForecast forecast_run(const RunSpec& spec, const LaunchOptions& options, const MachineInfo& machine);
// Throws a user error when the run needs more memory of this host than can be had; `advice` is what the caller's
// command can be told to do about it.
void require_memory(const RunForecast& forecast, uint64_t available_bytes, const std::string& advice);
// Of a run whose model is as it is.
inline constexpr const char* kSmallerBatch = "lower step_scheduler.local_batch_size or dataset.seq_len";

// The machine as the run uses it, and the bytes that the run can have there.
MachineInfo measure_for(const RunSpec& spec, const LaunchOptions& options);
uint64_t memory_for(const RunSpec& spec, const LaunchOptions& options);

}  // namespace sluice
