// The profiler's switch of the emulated runtime; see profiler.h.
#pragma once

#include <cuda_runtime.h>

#include "emulation/profiler.h"

inline cudaError_t cudaProfilerStart() {
  return sluice::emulation::tell_tool("start"), cudaSuccess;
}
inline cudaError_t cudaProfilerStop() {
  return sluice::emulation::tell_tool("stop"), cudaSuccess;
}
