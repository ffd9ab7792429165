// The roof over every operation: what a device does in a second at best.
#pragma once

#include <algorithm>

#include "ops/op.h"

namespace sluice {

struct Roof {
  double flops = 1;       // of products of `type`
  double bf16_flops = 0;  // of products of bf16, where `type` is another; 0: they have no rate of their own
  double bandwidth = 1;   // bytes read plus written
  DType type = DType::f32;

  // What products whose factors are of this type are held against: FLOPs a second, and the type these are of.
  double peak(DType factors) const { return has_own_peak(factors) ? bf16_flops : flops; }
  DType peak_type(DType factors) const { return has_own_peak(factors) ? factors : type; }
  double arithmetic_seconds(const Cost& cost) const { return cost.flops / peak(cost.factors); }
  double seconds(const Cost& cost) const { return std::max(arithmetic_seconds(cost), cost.bytes() / bandwidth); }

 private:
  bool has_own_peak(DType factors) const { return factors == DType::bf16 && bf16_flops > 0; }
};

}  // namespace sluice
