// Keeping experts equally busy: their loads, a loss on these, and the step of a selection bias.
#pragma once

#include "ops/op.h"

namespace sluice {

// load[e] += slots of expert e. Whole numbers, so sums in any order are equal.
struct ExpertLoad {
  static constexpr std::string_view name = "expert_load";
  Tensor load;     // += [E], f32 or f64
  Tensor experts;  //   i32 [T, K]

  void check() const;
  template <class V>
  void visit(V&& v) const {
    v("load", load, Access::update);
    v("experts", experts, Access::in);
  }
};

// The gradient of  coef E / (K T) sum_e load_e mean_t p_te  weighted by the T tokens' share of a batch, T grad_scale:
//   g_e = coef grad_scale E / (K T) load_e;   dlogits += p (g - sum p g)      [Fedus et al. 2021; p = softmax(logits)]
struct BalanceLossBackward {
  static constexpr std::string_view name = "balance_loss_backward";
  Tensor dlogits;     // += [T, E], accumulator type
  Tensor probs;       //   [T, E], accumulator type
  Tensor load;        //   [E], accumulator type
  Tensor grad_scale;  //   f64 [1]
  int64_t top_k = 0;
  double coef = 0;

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("dlogits", dlogits, Access::update);
    v("probs", probs, Access::in);
    v("load", load, Access::in);
    v("grad_scale", grad_scale, Access::in);
  }
};

// bias += rate sign(mean - load): experts that got less than the mean become more eligible.   [DeepSeek-V3 2024]
struct BalanceBias {
  static constexpr std::string_view name = "balance_bias";
  Tensor bias;  // in place, [N], f32 or f64
  Tensor load;  //   [N], as bias
  double mean = 0;
  double rate = 0;

  void check() const;
  template <class V>
  void visit(V&& v) const {
    v("bias", bias, Access::update);
    v("load", load, Access::in);
  }
};

}  // namespace sluice
