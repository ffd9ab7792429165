#include "ops/elementwise.h"

namespace sluice {

void Fill::check() const {
  if (x.dtype() != DType::i32) expect_float(name, "x", x, x.rank());
  require(x.defined() || x.numel() == 0, "{}: x is missing", name);
}

void FillNormal::check() const {
  expect_float(name, "x", x, x.rank());
  expect_dense(name, "x", x, x.shape(), x.dtype());
  require(first >= 0, "{}: the first element is {}", name, first);
}

double FillNormal::flops() const {
  return 2.0 * static_cast<double>(x.numel());
}

void Copy::check() const {
  if (y.dtype() == x.dtype()) {
    expect(name, "y", y, x.shape(), x.dtype());
    require(x.defined() || x.numel() == 0, "{}: x is missing", name);
  } else {
    expect_float(name, "x", x, x.rank());
    expect_float(name, "y", y, x.rank());
    expect(name, "y", y, x.shape(), y.dtype());
  }
}

void Add::check() const {
  expect_float(name, "y", y, y.rank());
  expect(name, "x", x, y.shape(), y.dtype());
}

double Add::flops() const {
  return static_cast<double>(y.numel());
}

void Sum::check() const {
  expect_float(name, "x", x, x.rank());
  expect_dense(name, "x", x, x.shape(), x.dtype());
  expect_dense(name, "sum", sum, {1}, DType::f64);
}

double Sum::flops() const {
  return (squares ? 2.0 : 1.0) * static_cast<double>(x.numel());
}

size_t Sum::scratch() const {
  return static_cast<size_t>((x.numel() + kPart - 1) / kPart) * sizeof(double);
}

}  // namespace sluice
