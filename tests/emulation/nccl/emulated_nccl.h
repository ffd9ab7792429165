// src/comm/nccl as it runs on the CPU (cuda_runtime.h and nccl.h in this folder).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "device/backend.h"

namespace sluice {
class Courier;
}

namespace sluice::emulation {

struct NcclRun {
  int ranks = 1;
  double timeout_s = 60;
  // The ranks know nothing of each other but through NCCL, which is left with calls that do not fit.
  bool strangers = false;
  // To the other processes, of which this one has some ranks; then `ranks` is not looked at.
  Courier* courier = nullptr;
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
// A backend whose operations are plain loops and whose data go through a stream that runs behind the host.
std::unique_ptr<Backend> make_queued_backend();
// As a run of training uses NCCL: body(world) on a thread for each rank, of the courier's process if there is one.
void run_nccl_ranks(int ranks, Courier* courier, double timeout_s, const std::function<void(Communicator&)>& body);
// How many communicators of NCCL there have been identities for so far.
int64_t nccl_identities();

inline constexpr int kEmulatedGpus = 8;

}  // namespace sluice::emulation
