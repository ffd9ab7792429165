#include "nn/embedding.h"

namespace sluice {

Embedding::Embedding(const std::string& name, int64_t vocab, int64_t hidden, double init_std)
    : weight_({.name = name + ".weight", .shape = {vocab, hidden}, .init_std = init_std}, 0, 1) {}

void Embedding::forward(Context& ctx, const Tensor& y, const Tensor& tokens) const {
  const NameScope scope(ctx, "embedding");
  ctx.run(EmbeddingForward{.y = y, .w = weight_.value, .tokens = tokens});
}

void Embedding::backward(Context& ctx, const Tensor& dy, const Tensor& tokens) const {
  const NameScope scope(ctx, "embedding");
  ctx.run(EmbeddingBackward{.dw = weight_.grad, .dy = dy, .tokens = tokens});
}

Head::Head(int64_t vocab, int64_t hidden, double eps, double init_std, double z_coef, const Param* tied)
    : norm_("final_norm", hidden, eps), tied_(tied), z_coef_(z_coef) {
  if (tied != nullptr) return;
  own_weight_.emplace(ParamSpec{.name = "head.weight", .shape = {vocab, hidden}, .init_std = init_std}, 0, 1);
}

void Head::forward(Context& ctx, const Tensor& loss, const Tensor& dx, const Tensor& normed, const Tensor& rstd,
                   const Tensor& x, const Tensor& labels, const Tensor& grad_scale) const {
  const NameScope scope(ctx, "head");
  const ArenaScope freed(ctx.scratch());
  norm_.forward(ctx, normed, rstd, x);
  const Tensor dnormed = dx.defined() ? ctx.scratch().empty_like(x) : Tensor();
  this->loss(ctx, loss, dnormed, normed, labels, grad_scale);
  if (dx.defined()) norm_.backward(ctx, dx, dnormed, x, rstd);
}

void Head::loss(Context& ctx, const Tensor& loss, const Tensor& dnormed, const Tensor& normed, const Tensor& labels,
                const Tensor& grad_scale) const {
  HeadLoss op{
      .loss = loss, .x = normed, .w = weight().value, .labels = labels, .grad_scale = grad_scale, .z_coef = z_coef_};
  if (dnormed.defined()) {
    op.dx = dnormed;
    op.dw = weight().grad;
  }
  ctx.run(op);
}

void Head::norm_backward(Context& ctx, const Tensor& dx, const Tensor& dnormed, const Tensor& x,
                         const Tensor& rstd) const {
  const NameScope scope(ctx, "head");
  norm_.backward(ctx, dx, dnormed, x, rstd, dx);
}

void Head::logits(Context& ctx, const Tensor& logits, const Tensor& x) const {
  const NameScope scope(ctx, "head");
  const ArenaScope arena_scope(ctx.scratch());
  const Tensor normed = ctx.scratch().empty_like(x);
  const Tensor rstd = ctx.scratch().empty({x.dim(0)}, ctx.accumulator());
  norm_.forward(ctx, normed, rstd, x);
  ctx.run(Gemm{.c = logits, .a = normed, .b = weight().value, .trans_b = true});
}

}  // namespace sluice
