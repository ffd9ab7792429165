// What the ranks of a process compute on.
#pragma once

#include <functional>
#include <memory>

#include "comm/inproc/mover.h"
#include "device/backend.h"
#include "device/device_kind.h"
#include "tensor/memory.h"

namespace sluice {

// Each function is called on the rank's thread.
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

}  // namespace sluice
