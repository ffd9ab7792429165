#include "ops/optimizer.h"

namespace sluice {

void AdamW::check() const {
  expect_float(name, "w", w, 1);
  if (master) {
    expect(name, "master", master, w.shape(), DType::f32);
    require(w.dtype() == DType::bf16 && !stochastic_rounding, "{}: a master for {}{}", name, w.str(),
            stochastic_rounding ? " with stochastic rounding" : "");
  }
  require(first >= 0, "{}: first is {}", name, first);
  require(lr_scale >= 0 && decay_scale >= 0, "{}: lr_scale {} and decay_scale {}", name, lr_scale, decay_scale);
  expect_float(name, "m", m, 1);
  expect(name, "m", m, w.shape(), m.dtype());
  expect(name, "v", v, w.shape(), m.dtype());
  expect(name, "g", g, w.shape(), accumulator_of(w.dtype()));
  expect_dense(name, "state", state, {kStepSlots}, DType::f64);
}

double AdamW::flops() const {
  return 16.0 * static_cast<double>(w.numel());
}

void ClipFactor::check() const {
  expect_dense(name, "state", state, {kStepSlots}, DType::f64);
  expect_dense(name, "sum_squares", sum_squares, {1}, DType::f64);
  require(max_norm > 0, "{}: max_norm is {}", name, max_norm);
}

}  // namespace sluice
