#include "nn/rmsnorm.h"

namespace sluice {

RmsNorm::RmsNorm(const std::string& name, int64_t dim, double eps)
    : gamma_({.name = name + ".gamma", .shape = {dim}, .init = InitKind::ones, .decay = false}, 0, 1), eps_(eps) {}

void RmsNorm::forward(Context& ctx, const Tensor& y, const Tensor& rstd, const Tensor& x) const {
  ctx.run(RmsNormForward{.y = y, .rstd = rstd, .x = x, .gamma = gamma_.value, .eps = eps_});
}

void RmsNorm::forward_residual(Context& ctx, const Tensor& sum, const Tensor& y, const Tensor& rstd, const Tensor& x,
                               const Tensor& add) const {
  ctx.run(
      ResidualRmsNormForward{.sum = sum, .y = y, .rstd = rstd, .x = x, .add = add, .gamma = gamma_.value, .eps = eps_});
}

void RmsNorm::backward(Context& ctx, const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& rstd,
                       const Tensor& residual) const {
  ctx.run(RmsNormBackward{
      .dx = dx, .dgamma = gamma_.grad, .dy = dy, .x = x, .rstd = rstd, .gamma = gamma_.value, .residual = residual});
}

}  // namespace sluice
