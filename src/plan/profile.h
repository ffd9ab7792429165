// Hardware profiles: what a machine does in a second and how much it holds, as a plan needs it. Figures of GPUs are
// public measurements, each with its source beside it; those of this machine's CPU are measured when asked for.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "comm/meta/network.h"
#include "comm/nccl_groups.h"
#include "device/meta/meta_backend.h"

namespace sluice {

// Bytes of a GPU that a communicator of NCCL takes; 0 where ranks have none.
struct CommunicatorMemory {
  size_t pair = 0;      // for collectives of two ranks
  size_t group = 0;     // of more
  size_t peer = 0;      // for each peer of the same node that it exchanges rows with
  size_t network = 0;   // once, where it has peers on other nodes
  size_t sender = 0;    // of one for messages: at the rank that sends
  size_t receiver = 0;  // and at the one that receives

  size_t of_rank(const NcclGroups& groups, int rank, const NetworkModel& network_model) const;
};

struct Profile {
  std::string name;
  std::string description;  // "8 x H100 80 GB a node, NVLink, 400 Gb/s InfiniBand each"
  DeviceModel device;
  NetworkModel network;
  DType dtype = DType::f32;  // of parameters and activations, unless a configuration says
  size_t memory = 0;         // bytes a rank has
  size_t usable = 0;         // of these, what the engine may plan with
  CommunicatorMemory communicators;
};

// "cpu", "h100", "h200", "dgx-h100".
std::vector<std::string> profile_names();
// The profile as one of `ranks` ranks sees it. `cpu` takes a second to measure, with `threads` threads that all ranks
// share, in `cpu_dtype`. User error with the nearest match for a name there is not.
Profile find_profile(std::string_view name, int ranks, int threads, DType cpu_dtype = DType::f32);

// This machine for `ranks` ranks as threads, each with its share of arithmetic, bandwidth and memory. It knows the
// peaks of all precisions; how near to its own each operation comes is measured in `dtype`.
Profile measure_cpu(int ranks, int threads, DType dtype);

}  // namespace sluice
