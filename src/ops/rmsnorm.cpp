#include "ops/rmsnorm.h"

namespace sluice {

namespace {

// The shape of one statistic per normed row: the shape of x without its last dimension.
Shape rows_shape(const Tensor& x) {
  return x.rank() == 3 ? Shape{x.dim(0), x.dim(1)} : Shape{x.dim(0)};
}

int64_t norm_dim(const Tensor& x) {
  return x.dim(x.rank() - 1);
}

void check_input(std::string_view op, const Tensor& x, const Tensor& gamma, const Tensor& rstd) {
  expect_float(op, "x", x, x.rank() == 3 ? 3 : 2);
  expect(op, "gamma", gamma, {norm_dim(x)}, x.dtype());
  expect_dense(op, "rstd", rstd, rows_shape(x), accumulator_of(x.dtype()));
}

}  // namespace

void RmsNormForward::check() const {
  check_input(name, x, gamma, rstd);
  expect(name, "y", y, x.shape(), x.dtype());
}

double RmsNormForward::flops() const {
  return 4.0 * static_cast<double>(x.numel());
}

void RmsNormBackward::check() const {
  check_input(name, x, gamma, rstd);
  expect(name, "dx", dx, x.shape(), x.dtype());
  expect(name, "dy", dy, x.shape(), x.dtype());
  expect(name, "dgamma", dgamma, gamma.shape(), accumulator_of(x.dtype()));
  if (residual) expect(name, "residual", residual, x.shape(), x.dtype());
}

double RmsNormBackward::flops() const {
  return (residual ? 10.0 : 9.0) * static_cast<double>(x.numel());
}

void ResidualRmsNormForward::check() const {
  expect_float(name, "x", x, 2);
  check_input(name, x, gamma, rstd);
  expect(name, "add", add, x.shape(), x.dtype());
  expect(name, "sum", sum, x.shape(), x.dtype());
  expect(name, "y", y, x.shape(), x.dtype());
}

double ResidualRmsNormForward::flops() const {
  return 5.0 * static_cast<double>(x.numel());
}

}  // namespace sluice
