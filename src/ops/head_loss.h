// LM head and cross-entropy in one: logits = x w^T are made, used and dropped a chunk of rows at a time.
//   lse[t] = logsumexp(logits[t]);  loss[t] = lse[t] - logits[t, label[t]]
//   dlogits = (softmax - onehot) grad_scale + 2 z_coef lse softmax grad_scale
// The second term is the gradient of the z-loss, z_coef lse^2 of each row, which keeps lse near 0 [Chowdhery et al.
// 2022, PaLM, section 5]. It is no part of `loss`. Rows whose label is -100 have loss and gradient 0. Without dx and dw
// it is an evaluation.
#pragma once

#include "ops/op.h"

namespace sluice {

inline constexpr int32_t kIgnoredLabel = -100;

struct HeadLoss {
  static constexpr std::string_view name = "head_loss";
  static constexpr OpKind kind = OpKind::head;
  Tensor loss;        // = [T], accumulator type
  Tensor dx;          // = [T, D], or undefined
  Tensor dw;          // += [V, D], or undefined (then dx is undefined too)
  Tensor x;           //   [T, D]
  Tensor w;           //   [V, D]
  Tensor labels;      //   i32 [T], in [0, V) or -100
  Tensor grad_scale;  //   f64 [1]
  double z_coef = 0;  // at least 0

  void check() const;
  double flops() const;
  DType factors() const { return factors_of(x, w); }
  template <class V>
  void visit(V&& v) const {
    v("loss", loss, Access::out);
    v("dx", dx, Access::out);
    v("dw", dw, Access::update);
    v("x", x, Access::in);
    v("w", w, Access::in);
    v("labels", labels, Access::in);
    v("grad_scale", grad_scale, Access::in);
  }
};

}  // namespace sluice
