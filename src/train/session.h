// Session: N ranks of one process train together; and the twin of each on meta, which says what it will need.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "comm/inproc/inproc.h"
#include "comm/meta/meta.h"
#include "device/device_kind.h"
#include "device/meta/meta_backend.h"
#include "device/pool.h"
#include "train/trainer.h"

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
RankPlan plan_rank(const RunSpec& spec, int rank, const DeviceModel& device, const NetworkModel& network);

// What the ranks of a process compute on; each function is called on the rank's thread.
struct Hardware {
  std::function<std::unique_ptr<Backend>(int rank)> backend;
  std::function<std::unique_ptr<Memory>(int rank)> memory;
  MoverFactory mover = {};  // null: memory is the host's
  bool nccl = false;        // ranks own a GPU each: NCCL moves data, and no mover
};
// Whether each of so many ranks would have a GPU of its own.
bool own_gpus(DeviceKind device, int ranks);
// `threads`: of the pool all ranks share. On cuda each rank has a GPU if there are that many and NCCL; otherwise all
// share the first one. User error where there is none.
Hardware hardware_of(DeviceKind device, int threads, int ranks);
// What plans for it count with.
Target target_of(DeviceKind device, int threads);

struct SessionOptions {
  DeviceKind device = DeviceKind::cpu;
  int threads = 1;  // of the pool all ranks share
  InprocOptions comm;
  // Instead of what `device` names.
  Hardware hardware = {};
  // Told of each rank's plan before the rank starts, on its thread.
  std::function<void(const RankPlan&)> planned = {};
};

// Runs `body` on every rank of the spec's mesh, each on a thread with its own trainer, whose memory is planned first.
// The first error of any rank ends all and is thrown. `dataset` must outlive the call.
void run_session(const RunSpec& spec, const SessionOptions& options, const Dataset& dataset,
                 const std::function<void(Trainer&)>& body);

}  // namespace sluice
