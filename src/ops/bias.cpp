#include "ops/bias.h"

namespace sluice {

namespace {

void check_rows(std::string_view op, int64_t rows, int64_t experts, const Tensor& offsets, const Tensor& weight,
                DType accumulator) {
  if (offsets.defined()) {
    expect_dense(op, "offsets", offsets, {experts + 1}, DType::i32);
  } else {
    require(experts == 1, "{}: {} biases without offsets", op, experts);
  }
  if (weight) expect_dense(op, "weight", weight, {rows}, accumulator);
}

}  // namespace

void AddBias::check() const {
  expect_float(name, "y", y, 2);
  expect_float(name, "b", b, 2);
  expect_dense(name, "b", b, {b.dim(0), y.dim(1)}, y.dtype());
  check_rows(name, y.dim(0), b.dim(0), offsets, weight, accumulator_of(y.dtype()));
}

double AddBias::flops() const {
  return (weight ? 2.0 : 1.0) * static_cast<double>(y.numel());
}

void BiasBackward::check() const {
  expect_float(name, "dy", dy, 2);
  expect_float(name, "db", db, 2);
  const DType accumulator = accumulator_of(dy.dtype());
  expect_dense(name, "db", db, {db.dim(0), dy.dim(1)}, accumulator);
  check_rows(name, dy.dim(0), db.dim(0), offsets, weight, accumulator);
  if (!dweight) return;
  expect_dense(name, "dweight", dweight, {dy.dim(0)}, accumulator);
  expect_dense(name, "b", b, db.shape(), dy.dtype());
}

double BiasBackward::flops() const {
  return (dweight ? 4.0 : weight ? 2.0 : 1.0) * static_cast<double>(dy.numel());
}

}  // namespace sluice
