// Session: N ranks of one process train together; and the twin of each on meta, which says what it will need.
#pragma once

#include <functional>

#include "comm/inproc/inproc.h"
#include "comm/meta/meta.h"
#include "device/meta/meta_backend.h"
#include "device/pool.h"
#include "train/trainer.h"

namespace sluice {

// What one rank needs, found by running a step of the trainer on meta.
struct RankPlan {
  ArenaSizes sizes;
  MemoryLedger ledger;
  double step_seconds = 0;
};

// The step runs on a machine of `device`, `network` as seen by `rank` alone: other ranks are taken to be as fast.
RankPlan plan_rank(const RunSpec& spec, int rank, const DeviceModel& device, const NetworkModel& network);

enum class Device : uint8_t { cpu, ref };

struct SessionOptions {
  Device device = Device::cpu;
  int threads = 1;  // of the pool all ranks share
  InprocOptions comm;
};

std::unique_ptr<Backend> make_backend(Device device, Pool& pool);

// Runs `body` on every rank of the spec's mesh, each on a thread with its own trainer, whose memory is planned first.
// The first error of any rank ends all and is thrown. `dataset` must outlive the call.
void run_session(const RunSpec& spec, const SessionOptions& options, const Dataset& dataset,
                 const std::function<void(Trainer&)>& body);

}  // namespace sluice
