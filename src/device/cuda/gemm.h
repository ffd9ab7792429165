// Dense products on a device's stream, for whoever needs one: gemm.cu itself, the head.
#pragma once

#include "device/kernel_log.h"
#include "ops/gemm.h"

namespace sluice::cuda {

class Device;

// Computes `op`: by cuBLASLt, or where that has no way by plain_gemm; says which. The same result in every run.
KernelSet gemm(Device& device, const Gemm& op);
// By the tiled kernel without tensor cores: any shape, strides and mix of types.
void plain_gemm(Device& device, const Gemm& op);

}  // namespace sluice::cuda
