// What NVIDIA's profilers are told: named ranges (NVTX) and when to record.
#pragma once

#include <memory>

#include "device/ranges.h"

namespace sluice::cuda {

// NVTX ranges in the domain "sluice", or null where no tool is attached to the process. For one thread at a time.
std::unique_ptr<Ranges> make_nvtx_ranges();
// cudaProfilerStart or cudaProfilerStop, for `nsys profile --capture-range=cudaProfilerApi`.
void record_profile(bool on);

}  // namespace sluice::cuda
