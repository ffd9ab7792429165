// Hardware profiles: what a machine does in a second and how much it holds, as a plan needs it. Figures of GPUs are
// public measurements, each with its source beside it; those of this machine's CPU are measured when asked for.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "comm/meta/network.h"
#include "device/meta/meta_backend.h"

namespace sluice {

struct Profile {
  std::string name;
  std::string description;  // "8 x H100 80 GB a node, NVLink, 400 Gb/s InfiniBand each"
  DeviceModel device;
  NetworkModel network;
  DType dtype = DType::f32;  // of parameters and activations, unless a configuration says
  size_t memory = 0;         // bytes a rank has
  size_t usable = 0;         // of these, what the engine may plan with
};

// "cpu", "h100", "h200", "dgx-h100".
std::vector<std::string> profile_names();
// The profile as one of `ranks` ranks sees it. `cpu` takes a second to measure, with `threads` threads that all ranks
// share. User error with the nearest match for a name there is not.
Profile find_profile(std::string_view name, int ranks, int threads);

// This machine for `ranks` ranks as threads, each with its share of arithmetic, bandwidth and memory.
Profile measure_cpu(int ranks, int threads);

}  // namespace sluice
