// The step on a flat shard, and what it needs to know: numbers that change from step to step are read from `state`, a
// tensor on the device, never from a host argument.
#pragma once

#include <bit>

#include "base/philox.h"
#include "ops/op.h"

namespace sluice {

// Slots of the f64 [kStepSlots] tensor.
enum StepSlot : int {
  kLearningRate,
  kBiasCorrection1,  // 1 - beta1^step
  kBiasCorrection2,  // 1 - beta2^step
  kClipFactor,       // gradients are multiplied by it
  kGradScale,        // 1 / label tokens of the global batch
  kMtpGradScale,     // that times the weight of the extra layer's loss
  kStep,             // its number, counted from 0
  kWeightDecay,
  kStepSlots,
};

// Random bits for stochastic rounding: 16 for each of the elements 8 block .. 8 block + 7 of a step.
SLUICE_HOST_DEVICE inline Philox::Block rounding_bits(uint64_t key, uint64_t step, int64_t block) {
  return Philox(key).block(static_cast<uint64_t>(block), step);
}
// x rounded up or down to a bf16, the nearer the likelier, so that the mean is x; by the bits of element i of a block.
// NaNs and infinities stay.
SLUICE_HOST_DEVICE inline bf16 round_stochastically(float x, const Philox::Block& bits, int i) {
  const auto value = std::bit_cast<uint32_t>(x);
  if ((value & 0x7f800000U) == 0x7f800000U) return bf16(x);
  const uint32_t random = bits[static_cast<size_t>(i / 2)] >> (16 * (i % 2)) & 0xffffU;
  bf16 result;
  result.bits = static_cast<uint16_t>((value + random) >> 16);
  return result;
}

// With lr = state[kLearningRate] lr_scale, d = state[kWeightDecay] decay_scale, and g' = g clip, coupled: g clip + d w
//   m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2
//   w -= lr (m / c1 / (sqrt(v / c2) + eps) + d w), coupled without d w
// Decoupled decay is AdamW's [Loshchilov & Hutter 2019], coupled decay that of Adam [Kingma & Ba 2015] as torch has it.
// With a master, w is only written: the step is the master's, w becomes its rounding to nearest.
struct AdamW {
  static constexpr std::string_view name = "adamw";
  static constexpr OpKind kind = OpKind::optimizer;
  Tensor w;       // in place, or = with a master, [N]
  Tensor master;  // in place, f32 [N] for a bf16 w, or undefined
  Tensor m;       // in place, [N], any floating type
  Tensor v;       // in place, [N], as m
  Tensor g;       //   [N], accumulator type of w
  Tensor state;   //   f64 [kStepSlots]
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double lr_scale = 1;
  double decay_scale = 1;
  bool coupled_decay = false;
  // A bf16 w without a master is rounded at random, or steps too small for its 8 bits would be lost. Element i draws
  // what (key, step, first + i) gives, however the parameter is sharded.
  bool stochastic_rounding = false;
  uint64_t key = 0;
  int64_t first = 0;

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& f) const {
    f("w", w, master ? Access::out : Access::update);
    f("master", master, Access::update);
    f("m", m, Access::update);
    f("v", v, Access::update);
    f("g", g, Access::in);
    f("state", state, Access::in);
  }
};

// state[kClipFactor] = min(1, max_norm / (sqrt(sum_squares) + 1e-6))
struct ClipFactor {
  static constexpr std::string_view name = "clip_factor";
  static constexpr OpKind kind = OpKind::optimizer;
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
