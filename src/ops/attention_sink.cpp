#include "ops/attention_sink.h"

namespace sluice {

void AttentionSink::check() const {
  expect_float(name, "o", o, 3);
  expect_dense(name, "lse", lse, {o.dim(0), o.dim(1)}, accumulator_of(o.dtype()));
  expect_dense(name, "sinks", sinks, {o.dim(1)}, o.dtype());
}

double AttentionSink::flops() const {
  return static_cast<double>(o.numel());
}

void AttentionSinkBackward::check() const {
  expect_float(name, "o", o, 3);
  const DType accumulator = accumulator_of(o.dtype());
  expect(name, "d_o", d_o, o.shape(), o.dtype());
  expect_dense(name, "lse", lse, {o.dim(0), o.dim(1)}, accumulator);
  expect_dense(name, "sinks", sinks, {o.dim(1)}, o.dtype());
  expect_dense(name, "dsinks", dsinks, {o.dim(1)}, accumulator);
}

double AttentionSinkBackward::flops() const {
  return 2.0 * static_cast<double>(o.numel());
}

size_t AttentionSinkBackward::scratch() const {
  return lse.bytes();
}

}  // namespace sluice
