// Grouped products by CUTLASS (folder cutlass/): sizes and pointers are made on the device from the offsets, the host
// reads nothing. For GPUs of capability 9.0 and what make_problems takes.
#pragma once

#include <string>

#include "ops/gemm.h"

namespace sluice::cuda {

class Device;

// Compute `op`, or return false, with nothing done: not built in, another GPU, types or alignments they do not take.
bool run_grouped(Device& device, const GroupedGemm& op, const Tensor& scratch);
bool run_grouped(Device& device, const GroupedGemmWeight& op, const Tensor& scratch);

// "CUTLASS 4.2", or that there is none and what happens instead.
std::string grouped_version();

}  // namespace sluice::cuda
