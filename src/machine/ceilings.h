// What a device does at best, measured now: the denominators of figures taken on it.
#pragma once

#include "device/backend.h"
#include "tensor/memory.h"

namespace sluice {

struct Ceilings {
  double flops = 0;      // per second: a product of random numbers
  double bandwidth = 0;  // bytes per second, read plus written: a copy
};

// A product of matrices [side, side] of `dtype`, and a copy of so many f32 elements, each the best of a few rounds.
Ceilings measure_ceilings(Backend& backend, Memory& memory, DType dtype, int64_t side, int64_t copied);

}  // namespace sluice
