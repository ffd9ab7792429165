// y = x * rstd * gamma,  rstd = 1 / sqrt(mean(x^2) + eps), over the last dimension   [Zhang & Sennrich 2019]
// A matrix [T, D] is normed by row; [T, n, D] by row and head, gamma shared by the heads. x may be strided.
#pragma once

#include "ops/op.h"

namespace sluice {

struct RmsNormForward {
  static constexpr std::string_view name = "rmsnorm_forward";
  static constexpr OpKind kind = OpKind::norm;
  Tensor y;      // = [T, D] or [T, n, D]
  Tensor rstd;   // = [T] or [T, n], accumulator type, kept for backward
  Tensor x;      //   as y
  Tensor gamma;  //   [D]
  double eps = 0;

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("y", y, Access::out);
    v("rstd", rstd, Access::out);
    v("x", x, Access::in);
    v("gamma", gamma, Access::in);
  }
};

// With xhat = x rstd and g = dy gamma:  dx = [residual +] rstd (g - xhat mean(g xhat)),  dgamma += sum over rows dy
// xhat. `residual` adds the gradient that flowed past the norm; dx may alias dy or residual.
struct RmsNormBackward {
  static constexpr std::string_view name = "rmsnorm_backward";
  static constexpr OpKind kind = OpKind::norm;
  Tensor dx;        // = as x
  Tensor dgamma;    // += [D]
  Tensor dy;        //   as x
  Tensor x;         //   [T, D] or [T, n, D]
  Tensor rstd;      //   [T] or [T, n], accumulator type
  Tensor gamma;     //   [D]
  Tensor residual;  //   as x, or undefined

  void check() const;
  double flops() const;
  int64_t rows() const { return rstd.numel(); }  // that are normed
  template <class V>
  void visit(V&& v) const {
    v("dx", dx, Access::out);
    v("dgamma", dgamma, Access::update);
    v("dy", dy, Access::in);
    v("x", x, Access::in);
    v("rstd", rstd, Access::in);
    v("gamma", gamma, Access::in);
    v("residual", residual, Access::in);
  }
};

// sum = x + y and its norm in one pass: the residual stream between two sublayers is `sum`.
struct ResidualRmsNormForward {
  static constexpr std::string_view name = "residual_rmsnorm_forward";
  static constexpr OpKind kind = OpKind::norm;
  Tensor sum;    // = [T, D] x + add, may alias x
  Tensor y;      // = [T, D] norm of sum
  Tensor rstd;   // = [T], accumulator type
  Tensor x;      //   [T, D]
  Tensor add;    //   [T, D]
  Tensor gamma;  //   [D]
  double eps = 0;

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("sum", sum, Access::out);
    v("y", y, Access::out);
    v("rstd", rstd, Access::out);
    v("x", x, Access::in);
    v("add", add, Access::in);
    v("gamma", gamma, Access::in);
  }
};

}  // namespace sluice
