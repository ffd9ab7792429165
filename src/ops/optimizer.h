// The step on a flat shard, and what it needs to know: numbers that change from step to step are read from `state`, a
// tensor on the device, never from a host argument.
#pragma once

#include "ops/op.h"

namespace sluice {

// Slots of the f64 [kStepSlots] tensor.
enum StepSlot : int {
  kLearningRate,
  kBiasCorrection1,  // 1 - beta1^step
  kBiasCorrection2,  // 1 - beta2^step
  kClipFactor,       // gradients are multiplied by it
  kGradScale,        // 1 / label tokens of the global batch
  kStepSlots,
};

// g' = g clip;  m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2
// w -= lr (m / c1 / (sqrt(v / c2) + eps) + decay w)                        [Loshchilov & Hutter 2019]
struct AdamW {
  static constexpr std::string_view name = "adamw";
  Tensor w;      // in place, [N]
  Tensor m;      // in place, [N], any floating type
  Tensor v;      // in place, [N], as m
  Tensor g;      //   [N], accumulator type of w
  Tensor state;  //   f64 [kStepSlots]
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double decay = 0;

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& f) const {
    f("w", w, Access::update);
    f("m", m, Access::update);
    f("v", v, Access::update);
    f("g", g, Access::in);
    f("state", state, Access::in);
  }
};

// state[kClipFactor] = min(1, max_norm / (sqrt(sum_squares) + 1e-6))
struct ClipFactor {
  static constexpr std::string_view name = "clip_factor";
  Tensor state;        // f64 [kStepSlots], its clip slot is set
  Tensor sum_squares;  //   f64 [1]
  double max_norm = 0;

  void check() const;
  template <class V>
  void visit(V&& v) const {
    v("state", state, Access::update);
    v("sum_squares", sum_squares, Access::in);
  }
};

}  // namespace sluice
