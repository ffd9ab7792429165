// Which experts a token goes to, and with what weight. Router arithmetic is in the accumulator type.
#pragma once

#include "ops/gate.h"
#include "ops/op.h"

namespace sluice {

// p = softmax(logits); the experts of the K largest logits in descending order (ties: lower expert first), and their p,
// which may be renormalised to sum 1: the softmax over the K logits alone.
struct SoftmaxTopKForward {
  static constexpr std::string_view name = "softmax_topk_forward";
  static constexpr OpKind kind = OpKind::routing;
  Tensor experts;  // = i32 [T, K]
  Tensor weights;  // = [T, K], accumulator type
  Tensor probs;    // = [T, E], accumulator type, kept for backward
  Tensor logits;   //   [T, E], accumulator type
  bool renormalize = true;

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("experts", experts, Access::out);
    v("weights", weights, Access::out);
    v("probs", probs, Access::out);
    v("logits", logits, Access::in);
  }
};

struct SoftmaxTopKBackward {
  static constexpr std::string_view name = "softmax_topk_backward";
  static constexpr OpKind kind = OpKind::routing;
  Tensor dlogits;   // = [T, E], accumulator type
  Tensor dweights;  //   [T, K], accumulator type
  Tensor experts;   //   i32 [T, K]
  Tensor weights;   //   [T, K]
  Tensor probs;     //   [T, E]
  bool renormalize = true;

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("dlogits", dlogits, Access::out);
    v("dweights", dweights, Access::in);
    v("experts", experts, Access::in);
    v("weights", weights, Access::in);
    v("probs", probs, Access::in);
  }
};

// The gradient of  coef sum_t lse_t^2, lse = log sum_e exp(logits_e),  scaled: of ST-MoE's router z-loss, which keeps
// logits small [Zoph et al. 2022, equation 5].
//   dlogits += 2 coef grad_scale lse softmax(logits)
struct RouterZBackward {
  static constexpr std::string_view name = "router_z_backward";
  static constexpr OpKind kind = OpKind::routing;
  Tensor dlogits;     // += [T, E], accumulator type
  Tensor logits;      //   [T, E], accumulator type
  Tensor grad_scale;  //   f64 [1]
  double coef = 0;

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("dlogits", dlogits, Access::update);
    v("logits", logits, Access::in);
    v("grad_scale", grad_scale, Access::in);
  }
};

struct ForcedGate {
  static constexpr std::string_view name = "forced_gate";
  static constexpr OpKind kind = OpKind::routing;
  Tensor experts;     // = i32 [T, K]
  Tensor weights;     // = [T, K], accumulator type
  Tensor sample_ids;  //   i64 [T / S], global ids; token = id * S + position
  int64_t seq_len = 0;
  GateSpec gate;

  void check() const;
  template <class V>
  void visit(V&& v) const {
    v("experts", experts, Access::out);
    v("weights", weights, Access::out);
    v("sample_ids", sample_ids, Access::in);
  }
};

}  // namespace sluice
