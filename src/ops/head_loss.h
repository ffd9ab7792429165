// LM head and cross-entropy in one: logits = x w^T are made, used and dropped a chunk of rows at a time.
//   loss[t] = logsumexp(logits[t]) - logits[t, label[t]];  dlogits = (softmax - onehot) grad_scale
// Rows whose label is -100 have loss and gradient 0. Without dx and dw it is an evaluation.
#pragma once

#include "ops/op.h"

namespace sluice {

inline constexpr int32_t kIgnoredLabel = -100;

struct HeadLoss {
  static constexpr std::string_view name = "head_loss";
  static constexpr Part part = Part::linear;
  Tensor loss;        // = [T], accumulator type
  Tensor dx;          // = [T, D], or undefined
  Tensor dw;          // += [V, D], or undefined (then dx is undefined too)
  Tensor x;           //   [T, D]
  Tensor w;           //   [V, D]
  Tensor labels;      //   i32 [T], in [0, V) or -100
  Tensor grad_scale;  //   f64 [1]

  // Scratch is chunk_rows() rows of logits of logits_dtype(), logits_stride() apart: the accumulator type on a CPU, the
  // storage type on a GPU, where the matrix units want it. On a CPU a workspace of so many bytes for each worker
  // follows.
  int64_t chunk_rows(const Target& target) const;
  DType logits_dtype(const Target& target) const;
  int64_t logits_stride(const Target& target) const;
  size_t workspace() const;
  void check() const;
  double flops() const;
  size_t scratch(const Target& target) const;
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
