#include "ops/head_loss.h"

namespace sluice {

void HeadLoss::check() const {
  expect_float(name, "x", x, 2);
  expect_float(name, "w", w, 2);
  const DType accumulator = accumulator_of(x.dtype());
  expect(name, "w", w, {w.dim(0), x.dim(1)}, x.dtype());
  require(w.dim(0) > 0, "{}: the vocabulary is empty", name);
  expect_dense(name, "loss", loss, {x.dim(0)}, accumulator);
  expect_dense(name, "labels", labels, {x.dim(0)}, DType::i32);
  expect_dense(name, "grad_scale", grad_scale, {1}, DType::f64);
  require(z_coef >= 0, "{}: z_coef is {}", name, z_coef);
  require(dx.defined() == dw.defined(), "{}: dx and dw are wanted together or not at all", name);
  if (dx) {
    expect(name, "dx", dx, x.shape(), x.dtype());
    expect(name, "dw", dw, w.shape(), accumulator);
  }
}

double HeadLoss::flops() const {
  const double products = dw ? 3 : 1;
  const auto logits = static_cast<double>(x.dim(0)) * static_cast<double>(w.dim(0));
  return logits * (products * 2.0 * static_cast<double>(x.dim(1)) + 4.0);
}

}  // namespace sluice
