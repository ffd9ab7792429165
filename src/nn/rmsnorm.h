// RMSNorm with a learned gamma (init 1): of a row, of a row after adding to the residual stream, or of each head.
#pragma once

#include <string>

#include "device/context.h"
#include "nn/param.h"

namespace sluice {

class RmsNorm {
 public:
  RmsNorm(const std::string& name, int64_t dim, double eps);

  // y = norm(x); x [T, D] or [T, n, D], may be strided; rstd [T] or [T, n] is kept for backward.
  void forward(Context& ctx, const Tensor& y, const Tensor& rstd, const Tensor& x) const;
  // sum = x + add, y = norm(sum)
  void forward_residual(Context& ctx, const Tensor& sum, const Tensor& y, const Tensor& rstd, const Tensor& x,
                        const Tensor& add) const;
  // dx = [residual +] gradient through the norm; dgamma +=
  void backward(Context& ctx, const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& rstd,
                const Tensor& residual = {}) const;

  void visit(const ParamVisitor& visitor) { visitor(gamma_); }

 private:
  Param gamma_;
  double eps_;
};

}  // namespace sluice
