// src/comm/nccl as it runs on the CPU (cuda_runtime.h and nccl.h in this folder).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "device/backend.h"

namespace sluice::emulation {

struct NcclRun {
  int ranks = 1;
  double timeout_s = 60;
  // Like processes: the ranks know nothing of each other but through NCCL, which is left with calls that do not fit.
  bool strangers = false;
};

// A rank with a GPU of its own: a compute stream that runs behind the host.
struct NcclRank {
  Communicator& world;
  Backend& backend;
  Stream& stream;
};

// body(rank) on a thread for each rank. Messages are there on axes "world", "pp" and "pair"; NCCL gets groups of one
// too.
void run_nccl(const NcclRun& run, const std::function<void(NcclRank&)>& body);

inline constexpr int kEmulatedGpus = 8;

}  // namespace sluice::emulation
