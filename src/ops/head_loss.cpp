#include "ops/head_loss.h"

#include <algorithm>

#include "ops/gemm.h"

namespace sluice {

namespace {
// A chunk of logits aims at this size: small enough for a cache, long enough that the weights are not read too often.
constexpr int64_t kChunkBytes = int64_t{32} << 20;
constexpr int64_t kMinRows = 128;
constexpr int64_t kMaxRows = 1024;
}  // namespace

int64_t HeadLoss::chunk_rows() const {
  const int64_t row_bytes = w.dim(0) * static_cast<int64_t>(size_of(accumulator_of(x.dtype())));
  const int64_t rows = std::clamp(kChunkBytes / std::max<int64_t>(row_bytes, 1), kMinRows, kMaxRows);
  return std::max<int64_t>(1, std::min(rows, x.dim(0)));
}

void HeadLoss::check() const {
  expect_float(name, "x", x, 2);
  expect_float(name, "w", w, 2);
  const DType accumulator = accumulator_of(x.dtype());
  expect(name, "w", w, {w.dim(0), x.dim(1)}, x.dtype());
  require(w.dim(0) > 0, "{}: the vocabulary is empty", name);
  expect_dense(name, "loss", loss, {x.dim(0)}, accumulator);
  expect_dense(name, "labels", labels, {x.dim(0)}, DType::i32);
  expect_dense(name, "grad_scale", grad_scale, {1}, DType::f64);
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

int64_t HeadLoss::logits_stride() const {
  return (w.dim(0) + 31) / 32 * 32 + 16;
}

size_t HeadLoss::workspace() const {
  if (x.dtype() != DType::f32) return 0;
  return std::max(gemm_workspace(w.dim(0), x.dim(1)), gemm_workspace(x.dim(1), std::max(w.dim(0), chunk_rows())));
}

size_t HeadLoss::scratch(const Target& target) const {
  const auto logits = static_cast<size_t>(chunk_rows() * logits_stride()) * size_of(accumulator_of(x.dtype()));
  return logits + static_cast<size_t>(target.workers) * workspace();
}

}  // namespace sluice
