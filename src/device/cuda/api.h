// The CUDA runtime, and its errors as ours. Everything of this folder is in namespace sluice::cuda and touches the
// runtime through this header, so that tests can carry it out on the CPU (tests/emulation).
#pragma once

#include <cuda_runtime.h>

#include "base/error.h"

namespace sluice::cuda {

// Throws "WHAT: cudaErrorX: its text" unless the call succeeded.
void check(cudaError_t status, const char* what);

// "CUDA 13.0, driver 13.0, cuBLAS 13.1, ...": what is loaded (libraries.cpp).
std::string library_versions();

}  // namespace sluice::cuda
