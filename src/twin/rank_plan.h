// The twin of a rank: the same trainer on meta, which says what the rank will need before it has any memory.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "comm/meta/meta.h"
#include "device/meta/meta_backend.h"
#include "trainer/trainer.h"

namespace sluice {

// What one rank needs, found by running steps of the trainer on meta.
struct RankPlan {
  int rank = 0;
  ArenaSizes sizes;
  MemoryLedger ledger;
  // Of one step. Its seconds are those of the operations, of exposed communication and of waits for other ranks.
  double step_seconds = 0;
  std::map<OpId, double> op_seconds;
  Traffic traffic;
};

// Sees each rank's trainer on meta before its first step, on the rank's thread; what it adds to the context must
// outlive the call.
using PlanWatch = std::function<void(int rank, Trainer&)>;

// Plans of `ranks`, which wait for each other: one rank alone, or one of each stage in a column of the mesh. Ranks that
// are not listed are taken to be as fast as those that are.
std::vector<RankPlan> plan_ranks(const RunSpec& spec, const std::vector<int>& ranks, const DeviceModel& device,
                                 const NetworkModel& network, const PlanWatch& watch = {});
// `rehearsal`, if it is not null, hears what the rank runs in a step.
RankPlan plan_rank(const RunSpec& spec, int rank, const DeviceModel& device, const NetworkModel& network,
                   Rehearsal* rehearsal = nullptr);

}  // namespace sluice
