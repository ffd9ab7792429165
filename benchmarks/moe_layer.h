// An expert layer as the sum of its operations, each timed alone: sorting, rows to experts and back, both products.
#pragma once

#include <string>
#include <vector>

#include "gpu_bench.h"

namespace sluice {

struct MoeLayer {
  std::string what;       // of a model, with so many experts
  std::string direction;  // forward, backward
  double seconds = 0;
  double flops = 0;  // of the products
  Floor floor;
};

// Those whose operations are all among `timed`.
std::vector<MoeLayer> moe_layers(const std::vector<TimedOp>& timed);

}  // namespace sluice
