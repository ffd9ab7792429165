#include "ops/embedding.h"

namespace sluice {

void EmbeddingForward::check() const {
  expect_float(name, "y", y, 2);
  expect_float(name, "w", w, 2);
  expect(name, "w", w, {w.dim(0), y.dim(1)}, y.dtype());
  expect_dense(name, "tokens", tokens, {y.dim(0)}, DType::i32);
}

void EmbeddingBackward::check() const {
  expect_float(name, "dy", dy, 2);
  expect_float(name, "dw", dw, 2);
  expect(name, "dw", dw, {dw.dim(0), dy.dim(1)}, accumulator_of(dy.dtype()));
  expect_dense(name, "tokens", tokens, {dy.dim(0)}, DType::i32);
}

double EmbeddingBackward::flops() const {
  return static_cast<double>(dy.numel());
}

}  // namespace sluice
