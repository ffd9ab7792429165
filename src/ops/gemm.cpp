#include "ops/gemm.h"

namespace sluice {

void Gemm::check() const {
  expect_float(name, "c", c, 2);
  expect_float(name, "a", a, 2);
  expect_mixed(name, "a", a, trans_a ? Shape{k(), m()} : Shape{m(), k()}, c.dtype());
  expect_mixed(name, "b", b, trans_b ? Shape{n(), k()} : Shape{k(), n()}, c.dtype());
}

double Gemm::flops() const {
  return 2.0 * static_cast<double>(m()) * static_cast<double>(n()) * static_cast<double>(k());
}

void GroupedGemm::check() const {
  expect_float(name, "x", x, 2);
  expect_float(name, "w", w, 3);
  expect_mixed(name, "x", x, {x.dim(0), k()}, w.dtype());
  expect_mixed(name, "y", y, {x.dim(0), n()}, w.dtype());
  expect_dense(name, "offsets", offsets, {w.dim(0) + 1}, DType::i32);
}

double GroupedGemm::flops() const {
  return 2.0 * static_cast<double>(x.dim(0)) * static_cast<double>(n()) * static_cast<double>(k());
}

void GroupedGemmWeight::check() const {
  expect_float(name, "dw", dw, 3);
  expect_float(name, "dy", dy, 2);
  expect_mixed(name, "dy", dy, {dy.dim(0), dw.dim(1)}, dw.dtype());
  expect_mixed(name, "x", x, {dy.dim(0), dw.dim(2)}, dw.dtype());
  expect_dense(name, "offsets", offsets, {dw.dim(0) + 1}, DType::i32);
}

double GroupedGemmWeight::flops() const {
  return 2.0 * static_cast<double>(dy.dim(0)) * static_cast<double>(dw.dim(1)) * static_cast<double>(dw.dim(2));
}

}  // namespace sluice
