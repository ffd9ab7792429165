// DeepSeek V3's routing: scores are sigmoids, the choice among them is steered by a bias that takes no gradient.
// [DeepSeek-V3 2024, section 2.1.2] Router arithmetic is in the accumulator type.
#pragma once

#include "ops/op.h"

namespace sluice {

struct SigmoidRouterSpec {
  int64_t groups = 1;      // experts in so many consecutive groups of equal size
  int64_t top_groups = 1;  // of which a token may use so many
  bool normalize = true;   // the K weights add up to `scale`
  double scale = 1;

  bool operator==(const SigmoidRouterSpec&) const = default;
};

// s = sigmoid(logits);  choice = s + bias. A group counts by the sum of its two best choices; the best groups stay, and
// in them the K best choices in descending order (ties: lower index first, among groups and experts).
// weights = s of these, divided by (their sum + 1e-20) if normalised, times scale.
struct SigmoidTopKForward {
  static constexpr std::string_view name = "sigmoid_topk_forward";
  static constexpr OpKind kind = OpKind::routing;
  Tensor experts;  // = i32 [T, K]
  Tensor weights;  // = [T, K], accumulator type
  Tensor scores;   // = [T, E] s, accumulator type, kept for backward
  Tensor logits;   //   [T, E], accumulator type
  Tensor bias;     //   [E], accumulator type
  SigmoidRouterSpec spec;

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("experts", experts, Access::out);
    v("weights", weights, Access::out);
    v("scores", scores, Access::out);
    v("logits", logits, Access::in);
    v("bias", bias, Access::in);
  }
};

// Of the chosen: ds_j = (scale dw_j - <dw, w>) / (sum of s + 1e-20), or scale dw_j if not normalised;
// dlogits = ds s (1 - s), 0 elsewhere.
struct SigmoidTopKBackward {
  static constexpr std::string_view name = "sigmoid_topk_backward";
  static constexpr OpKind kind = OpKind::routing;
  Tensor dlogits;   // = [T, E], accumulator type
  Tensor dweights;  //   [T, K], accumulator type
  Tensor experts;   //   i32 [T, K]
  Tensor weights;   //   [T, K]
  Tensor scores;    //   [T, E]
  SigmoidRouterSpec spec;

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("dlogits", dlogits, Access::out);
    v("dweights", dweights, Access::in);
    v("experts", experts, Access::in);
    v("weights", weights, Access::in);
    v("scores", scores, Access::in);
  }
};

}  // namespace sluice
