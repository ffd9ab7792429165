#include "ops/swiglu.h"

namespace sluice {

void SwigluForward::check() const {
  expect_float(name, "h", h, 2);
  expect(name, "gate_up", gate_up, {h.dim(0), 2 * h.dim(1)}, h.dtype());
  if (weight) expect_dense(name, "weight", weight, {h.dim(0)}, accumulator_of(h.dtype()));
}

double SwigluForward::flops() const {
  return (weight ? 6.0 : 5.0) * static_cast<double>(h.numel());
}

void SwigluBackward::check() const {
  expect_float(name, "dh", dh, 2);
  const Shape wide{dh.dim(0), 2 * dh.dim(1)};
  expect(name, "dgate_up", dgate_up, wide, dh.dtype());
  expect(name, "gate_up", gate_up, wide, dh.dtype());
  const DType accumulator = accumulator_of(dh.dtype());
  if (weight) expect_dense(name, "weight", weight, {dh.dim(0)}, accumulator);
  if (dweight) {
    require(weight.defined() || weight.rank() > 0, "{}: dweight without weight", name);
    expect_dense(name, "dweight", dweight, {dh.dim(0)}, accumulator);
  }
}

double SwigluBackward::flops() const {
  return (dweight ? 15.0 : 12.0) * static_cast<double>(dh.numel());
}

}  // namespace sluice
