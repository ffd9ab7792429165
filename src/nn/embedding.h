// The two ends of the model: token embedding, and final norm + LM head + loss.
#pragma once

#include <optional>
#include <string>

#include "device/context.h"
#include "nn/param.h"
#include "nn/rmsnorm.h"

namespace sluice {

class Embedding {
 public:
  Embedding(const std::string& name, int64_t vocab, int64_t hidden, double init_std);
  // y [T, D] = w[tokens], tokens i32 [T]
  void forward(Context& ctx, const Tensor& y, const Tensor& tokens) const;
  void backward(Context& ctx, const Tensor& dy, const Tensor& tokens) const;
  void visit(const ParamVisitor& visitor) { visitor(weight_); }
  const Param& weight() const { return weight_; }

 private:
  Param weight_;
};

// The head computes its gradients in its forward chunks: its weight gradient cannot be delayed.
class Head {
 public:
  // With a z_coef gradients are those of the loss plus z_coef times the z-loss (HeadLoss). `tied`, which outlives this,
  // is read as the head's matrix and gets its gradient too; null: the head has its own.
  Head(int64_t vocab, int64_t hidden, double eps, double init_std, double z_coef = 0, const Param* tied = nullptr);
  // loss [T] and, if dx is defined, dx [T, D] = gradient of sum(loss) * grad_scale[0]. labels i32 [T]. normed [T, D]
  // and rstd [T] are written: the final norm's output and its statistic.
  void forward(Context& ctx, const Tensor& loss, const Tensor& dx, const Tensor& normed, const Tensor& rstd,
               const Tensor& x, const Tensor& labels, const Tensor& grad_scale) const;
  // The part of it after the norm; dnormed may be undefined.
  void loss(Context& ctx, const Tensor& loss, const Tensor& dnormed, const Tensor& normed, const Tensor& labels,
            const Tensor& grad_scale) const;
  // dx += the gradient of x through the final norm, for who else reads its output
  void norm_backward(Context& ctx, const Tensor& dx, const Tensor& dnormed, const Tensor& x, const Tensor& rstd) const;
  // logits [T, V], accumulator type = norm(x) w^T
  void logits(Context& ctx, const Tensor& logits, const Tensor& x) const;
  void visit(const ParamVisitor& visitor) {
    norm_.visit(visitor);
    if (own_weight_) visitor(*own_weight_);
  }

 private:
  const Param& weight() const { return own_weight_ ? *own_weight_ : *tied_; }

  RmsNorm norm_;
  std::optional<Param> own_weight_;
  const Param* tied_;
  double z_coef_;
};

}  // namespace sluice
