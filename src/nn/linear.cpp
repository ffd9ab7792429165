#include "nn/linear.h"

namespace sluice {

Linear::Linear(const std::string& name, int64_t in, int64_t out, double init_std, bool bias)
    : weight_({.name = name + ".weight", .shape = {out, in}, .init_std = init_std}, 0, 1) {
  if (!bias) return;
  bias_.emplace(ParamSpec{.name = name + ".bias", .shape = {out}, .init = InitKind::zeros, .decay = false}, 0, 1);
}

Tensor Linear::forward(Context& ctx, const Tensor& x, Arena& arena) const {
  Tensor y = arena.empty({x.dim(0), weight_.value.dim(0)}, x.dtype());
  forward(ctx, y, x);
  return y;
}

void Linear::forward(Context& ctx, const Tensor& y, const Tensor& x, bool accumulate) const {
  ctx.run(Gemm{.c = y, .a = x, .b = weight_.value, .trans_b = true, .accumulate = accumulate});
  if (!bias_) return;
  Tensor bias = bias_->value.view({1, y.dim(1)});
  const ArenaScope scope(ctx.scratch());
  if (bias.dtype() != y.dtype()) {
    const Tensor wide = ctx.scratch().empty(bias.shape(), y.dtype());
    ctx.run(Copy{.y = wide, .x = bias});
    bias = wide;
  }
  ctx.run(AddBias{.y = y, .b = bias});
}

void Linear::input_grad(Context& ctx, const Tensor& dx, const Tensor& dy, bool accumulate) const {
  ctx.run(Gemm{.c = dx, .a = dy, .b = weight_.value, .accumulate = accumulate});
}

void Linear::weight_grad(Context& ctx, const Tensor& x, const Tensor& dy) const {
  ctx.run(Gemm{.c = weight_.grad, .a = dy, .b = x, .trans_a = true, .accumulate = true});
  if (bias_) ctx.run(BiasBackward{.db = bias_->grad.view({1, dy.dim(1)}), .dy = dy});
}

}  // namespace sluice
