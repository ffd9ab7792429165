// Keeping experts equally busy: their loads, a loss on these, and the steps of what loads change: a selection bias, and
// the shares that a loss over the global batch reads.
#pragma once

#include "ops/op.h"

namespace sluice {

// Over which tokens a balance loss counts what goes to each expert.
enum class BalanceOver : uint8_t { micro_batch, sequence, global_batch };

// load[e] += slots of expert e. Whole numbers, so sums in any order are equal.
struct ExpertLoad {
  static constexpr std::string_view name = "expert_load";
  static constexpr OpKind kind = OpKind::routing;
  Tensor load;     // += [E], f32 or f64
  Tensor experts;  //   i32 [T, K]

  void check() const;
  template <class V>
  void visit(V&& v) const {
    v("load", load, Access::update);
    v("experts", experts, Access::in);
  }
};

// The gradient of  coef E sum_e f_e mean_t p_te, f = load / slots,  for each of G runs of S = T / G tokens, weighted by
// the run's share of a batch, S grad_scale:
//   g_e = coef grad_scale E / slots load_e
//   p = softmax(logits): dlogits += p (g - sum p g)                            [Fedus et al. 2021]
//   p = s / sum s, s = sigmoid(logits): dlogits += p (1 - s) (g - sum p g)     [DeepSeek-V3 2024, eq. 17-20]
struct BalanceLossBackward {
  static constexpr std::string_view name = "balance_loss_backward";
  static constexpr OpKind kind = OpKind::routing;
  Tensor dlogits;     // += [T, E], accumulator type
  Tensor probs;       //   [T, E], accumulator type: p, or s
  Tensor load;        //   [G, E], accumulator type
  Tensor grad_scale;  //   f64 [1]
  int64_t slots = 0;  // what each row of load adds up to: K S, or 1 if it holds shares
  double coef = 0;
  bool sigmoid = false;

  int64_t run_tokens() const { return dlogits.dim(0) / load.dim(0); }  // S

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
  static constexpr OpKind kind = OpKind::routing;
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

// share = load / slots
struct LoadShare {
  static constexpr std::string_view name = "load_share";
  static constexpr OpKind kind = OpKind::routing;
  Tensor share;  // = [N], f32 or f64
  Tensor load;   //   [N], as share
  double slots = 0;

  void check() const;
  template <class V>
  void visit(V&& v) const {
    v("share", share, Access::out);
    v("load", load, Access::in);
  }
};

}  // namespace sluice
