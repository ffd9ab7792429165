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

Head::Head(int64_t vocab, int64_t hidden, double eps, double init_std)
    : norm_("final_norm", hidden, eps),
      weight_({.name = "head.weight", .shape = {vocab, hidden}, .init_std = init_std}, 0, 1) {}

void Head::forward(Context& ctx, const Tensor& loss, const Tensor& dx, const Tensor& x, const Tensor& labels,
                   const Tensor& grad_scale) const {
  const NameScope scope(ctx, "head");
  Arena& scratch = ctx.scratch();
  const Tensor normed = scratch.empty_like(x);
  const Tensor rstd = scratch.empty({x.dim(0)}, ctx.accumulator());
  norm_.forward(ctx, normed, rstd, x);
  HeadLoss op{.loss = loss, .x = normed, .w = weight_.value, .labels = labels, .grad_scale = grad_scale};
  if (dx.defined()) {
    op.dx = scratch.empty_like(x);
    op.dw = weight_.grad;
  }
  ctx.run(op);
  if (dx.defined()) norm_.backward(ctx, dx, op.dx, x, rstd);
}

}  // namespace sluice
