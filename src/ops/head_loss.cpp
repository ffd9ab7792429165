#include "ops/head_loss.h"

#include <algorithm>

#include "ops/gemm.h"

namespace sluice {

int64_t HeadLoss::chunk_rows(const Target& target) const {
  const int64_t num_tokens = std::max<int64_t>(x.dim(0), 1);
  if (target.platform == Platform::cuda) {
    // Every chunk reads and writes all of dw, so chunks are long, whole tiles of a product, and about equal.
    constexpr int64_t kBytes = int64_t{640} << 20, kTile = 128, kMost = 4096;
    const int64_t row_bytes = logits_stride(target) * static_cast<int64_t>(size_of(logits_dtype(target)));
    const int64_t most = std::clamp(kBytes / row_bytes / kTile * kTile, kTile, kMost);
    const int64_t num_chunks = (num_tokens + most - 1) / most;
    const int64_t rows = (num_tokens + num_chunks - 1) / num_chunks;
    return std::min((rows + kTile - 1) / kTile * kTile, num_tokens);
  }
  // Small enough for a cache, long enough that the weights are not read too often.
  constexpr int64_t kBytes = int64_t{32} << 20, kLeast = 128, kMost = 1024;
  const int64_t row_bytes = w.dim(0) * static_cast<int64_t>(size_of(logits_dtype(target)));
  return std::min(std::clamp(kBytes / std::max<int64_t>(row_bytes, 1), kLeast, kMost), num_tokens);
}

DType HeadLoss::logits_dtype(const Target& target) const {
  return target.platform == Platform::cuda ? x.dtype() : accumulator_of(x.dtype());
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

int64_t HeadLoss::logits_stride(const Target& target) const {
  if (target.platform == Platform::cuda) {  // whole pieces of 16 bytes
    const int64_t piece = 16 / static_cast<int64_t>(size_of(logits_dtype(target)));
    return (w.dim(0) + piece - 1) / piece * piece;
  }
  return (w.dim(0) + 31) / 32 * 32 + 16;  // no power of two: columns are read too
}

size_t HeadLoss::workspace() const {
  if (x.dtype() != DType::f32) return 0;
  return std::max(gemm_workspace(w.dim(0), x.dim(1)), gemm_workspace(x.dim(1), std::max(w.dim(0), chunk_rows({}))));
}

size_t HeadLoss::scratch(const Target& target) const {
  const auto elements = static_cast<size_t>(chunk_rows(target) * logits_stride(target));
  const size_t logits = elements * size_of(logits_dtype(target));
  return target.platform == Platform::cuda ? logits : logits + static_cast<size_t>(target.workers) * workspace();
}

}  // namespace sluice
