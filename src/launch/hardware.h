// What the ranks of a process compute on.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "comm/inproc/mover.h"
#include "comm/processes/courier.h"
#include "device/backend.h"
#include "device/device_kind.h"
#include "launch/gpu_choice.h"
#include "tensor/memory.h"

namespace sluice {

// Runs a world of `ranks`, some of them in the courier's other processes if it is not null: body on a thread for each
// rank of this process, as the transports' run_ranks do.
using RanksRunner =
    std::function<void(int ranks, Courier* courier, double timeout_s, const std::function<void(Communicator&)>& body)>;

// Each function is called on the rank's thread.
struct Hardware {
  std::function<std::unique_ptr<Backend>(int rank)> backend;
  std::function<std::unique_ptr<Memory>(int rank)> memory;
  MoverFactory mover = {};  // null: memory is the host's
  // Where ranks own a GPU each: runs them, connected by NCCL, and there is no mover. Null elsewhere.
  RanksRunner gpu_ranks = {};
  // The processors that the rank's threads should stay on; empty or null: any.
  std::function<std::vector<int>(int rank)> processors = {};
};

// Whether each of so many ranks of one process would have a GPU of its own.
bool own_gpus(DeviceKind device, int ranks);
// Of the only process of a job. `threads`: of the pool all ranks share. On cuda each rank has a GPU if there are that
// many and NCCL; otherwise all share the first one. User error where there is none.
Hardware hardware_of(DeviceKind device, int threads, int ranks);
// Of one of the courier's processes, each of which calls this. On cuda each rank has a GPU: user error where there are
// not that many, or no NCCL.
Hardware hardware_of(DeviceKind device, int threads, Courier& courier, const launch::LocalRanks& local);
// What plans for it count with.
Target target_of(DeviceKind device, int threads);

}  // namespace sluice
