// The operations that are timed: every one of the vocabulary at the shapes of the published models.
#pragma once

#include "gpu_bench.h"

namespace sluice {

// Small sizes take moments on the reference loops.
void time_all_operations(GpuBench& bench, bool tiny);

// A product of three times `side`, and a copy of `bytes` in the device's memory: what the device does at best.
struct Ceilings {
  double flop_per_s = 0;
  double copy_byte_per_s = 0;  // read and written
};
Ceilings measure_ceilings(GpuBench& bench, int64_t side, int64_t bytes);

}  // namespace sluice
