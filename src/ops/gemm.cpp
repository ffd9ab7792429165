#include "ops/gemm.h"

#include <algorithm>

namespace sluice {

namespace {

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Only f32 has a fast path that packs.
size_t workspaces(DType c, DType a, DType b, int64_t n, int64_t k, const Target& target) {
  if (target.platform != Platform::cpu) return 0;
  const bool fast = c == DType::f32 && a == DType::f32 && b == DType::f32;
  return fast ? static_cast<size_t>(target.workers) * gemm_workspace(n, k) : 0;
}

size_t grouped_workspaces(DType c, DType a, DType b, int64_t n, int64_t k, int64_t num_experts, const Target& target) {
  if (target.platform == Platform::cpu) return workspaces(c, a, b, n, k, target);
  return a == DType::bf16 && b == DType::bf16 ? grouped_workspace(num_experts) : 0;
}

}  // namespace

size_t gemm_workspace(int64_t n, int64_t k) {
  // 64: the widest panel of b of any instruction set.
  const int64_t columns = round_up(std::min(n, kGemmWidth), 64) + kGemmPanels;
  return static_cast<size_t>(round_up(columns * std::min(k, kGemmDepth) * 4, 256));
}

size_t grouped_workspace(int64_t num_experts) {
  return static_cast<size_t>(round_up(num_experts * kGroupedBytesPerExpert, 256) + kGroupedTensorMapBytes);
}

void Gemm::check() const {
  expect_float(name, "c", c, 2);
  expect_float(name, "a", a, 2);
  expect_mixed(name, "a", a, trans_a ? Shape{k(), m()} : Shape{m(), k()}, c.dtype());
  expect_mixed(name, "b", b, trans_b ? Shape{n(), k()} : Shape{k(), n()}, c.dtype());
}

double Gemm::flops() const {
  return 2.0 * static_cast<double>(m()) * static_cast<double>(n()) * static_cast<double>(k());
}

size_t Gemm::scratch(const Target& target) const {
  return workspaces(c.dtype(), a.dtype(), b.dtype(), n(), k(), target);
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

size_t GroupedGemm::scratch(const Target& target) const {
  return grouped_workspaces(y.dtype(), x.dtype(), w.dtype(), n(), k(), w.dim(0), target);
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

size_t GroupedGemmWeight::scratch(const Target& target) const {
  return grouped_workspaces(dw.dtype(), dy.dtype(), x.dtype(), dw.dim(2), dy.dim(0), dw.dim(0), target);
}

}  // namespace sluice
