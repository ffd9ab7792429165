// y = x W^T [+ b]. The gradient of weight and bias is a call of its own, so that a schedule may delay it.
#pragma once

#include <optional>
#include <string>

#include "device/context.h"
#include "nn/param.h"

namespace sluice {

class Linear {
 public:
  // weight [out, in], normal(init_std); bias [out], zeros
  Linear(const std::string& name, int64_t in, int64_t out, double init_std, bool bias = false);

  // x [T, in] -> [T, out] in `arena`
  Tensor forward(Context& ctx, const Tensor& x, Arena& arena) const;
  // y = x W^T + b, or y += the same, [T, out]; y may be of the accumulator type.
  void forward(Context& ctx, const Tensor& y, const Tensor& x, bool accumulate = false) const;
  // dx = dy W, or dx += dy W
  void input_grad(Context& ctx, const Tensor& dx, const Tensor& dy, bool accumulate = false) const;
  // dW += dy^T x, db += sum of dy
  void weight_grad(Context& ctx, const Tensor& x, const Tensor& dy) const;

  void visit(const ParamVisitor& visitor) {
    visitor(weight_);
    if (bias_) visitor(*bias_);
  }
  Param& weight() { return weight_; }

 private:
  Param weight_;
  std::optional<Param> bias_;
};

}  // namespace sluice
