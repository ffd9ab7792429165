#include "ops/rope.h"

namespace sluice {

void RopeTable::check() const {
  expect_float(name, "cos_sin", cos_sin, 2);
  require(cos_sin.dim(1) % 2 == 0, "{}: the rotated dimension {} is odd", name, cos_sin.dim(1));
  require(theta > 0, "{}: theta is {}", name, theta);
  require(scaling.factor >= 1 && scaling.end != scaling.start, "{}: a factor of {} between {} and {}", name,
          scaling.factor, scaling.start, scaling.end);
}

double RopeTable::flops() const {
  return static_cast<double>(cos_sin.numel());
}

void Rope::check() const {
  expect_float(name, "x", x, 3);
  require(x.dim(2) % 2 == 0, "{}: the rotated dimension {} is odd", name, x.dim(2));
  require(cos_sin.dim(0) > 0, "{}: cos_sin {} has no positions", name, cos_sin.str());
  expect_dense(name, "cos_sin", cos_sin, {cos_sin.dim(0), x.dim(2)}, accumulator_of(x.dtype()));
}

double Rope::flops() const {
  return 3.0 * static_cast<double>(x.numel());
}

}  // namespace sluice
