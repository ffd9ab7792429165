#include "device/cpu/gemm_kernel.h"

#include "device/cpu/scratch.h"
#include "device/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "device/cpu/gemm_kernel.cpp"
#include <hwy/foreach_target.h>  // compiles this file once per target

#include "device/cpu/gemm_micro-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

static_assert(kGemmWidth % kCols == 0 && kGemmPanels >= kCols);
// Row panels of a transposed a that are packed together, so that its cache lines are used whole.
constexpr int64_t kPanelsAtOnce = kGemmPanels / kRows;

// Asks for the part of a block [rows, cols] that belongs to step `step` of `steps`: the next block of a comes from
// memory while this one is multiplied.
HWY_INLINE HWY_ATTR void prefetch_part(const float* block, int64_t stride, int64_t rows, int64_t cols, int64_t step,
                                       int64_t steps) {
  constexpr int64_t kLine = 16;
  const int64_t lines = (cols + kLine - 1) / kLine;
  const int64_t each = (rows * lines + steps - 1) / steps;
  const int64_t end = std::min(rows * lines, (step + 1) * each);
  int64_t row = step * each / lines;
  int64_t line = step * each % lines;
  for (int64_t n = step * each; n < end; ++n) {
    hwy::Prefetch(block + row * stride + line * kLine);
    if (++line == lines) {
      line = 0;
      ++row;
    }
  }
}

// One block of depth and width: b is packed, and the rows of a stream past it. A row panel of a meets all panels of b
// in turn, so that it is read once and c is written row by row.
HWY_ATTR void gemm_block(const GemmTile& t, int64_t k, int64_t depth, int64_t j, int64_t width, float* b_panels,
                         float* a_panels) {
  const bool accumulate = t.accumulate || k > 0;
  pack_panels(t.trans_b ? t.b + j * t.ldb + k : t.b + k * t.ldb + j, t.ldb, t.trans_b, depth, width, b_panels);
  const int64_t steps = (width + kCols - 1) / kCols;
  float* c = t.c + j;
  if (!t.trans_a) {
    for (int64_t i = 0; i < t.m; i += kRows) {
      const float* a = t.a + i * t.lda + k;
      const int64_t rows = std::min(kRows, t.m - i);
      const int64_t next_rows = std::min(kRows, t.m - i - rows);
      if (rows < kRows) pack_transposed<kRows>(a, t.lda, depth, rows, a_panels);
      for (int64_t step = 0; step < steps; ++step) {
        prefetch_part(a + kRows * t.lda, t.lda, next_rows, depth, step, steps);
        const float* b = b_panels + step * kCols * depth;
        const int64_t cols = std::min(kCols, width - step * kCols);
        float* to = c + i * t.ldc + step * kCols;
        if (rows == kRows) {
          tile<Along::rows>(depth, a, t.lda, b, to, t.ldc, accumulate, rows, cols);
        } else {
          tile<Along::depth>(depth, a_panels, kRows, b, to, t.ldc, accumulate, rows, cols);
        }
      }
    }
    return;
  }
  constexpr int64_t kGroup = kPanelsAtOnce * kRows;
  for (int64_t i = 0; i < t.m; i += kGroup) {
    const float* a = t.a + k * t.lda + i;
    const int64_t group = std::min(t.m - i, kGroup);
    const int64_t next_group = std::min(t.m - i - group, kGroup);
    pack_row_panels(a, t.lda, depth, group, a_panels);
    for (int64_t r = 0; r < group; r += kRows) {
      for (int64_t step = 0; step < steps; ++step) {
        if (next_group > 0) {
          prefetch_part(a + kGroup, t.lda, depth, next_group, r / kRows * steps + step, kPanelsAtOnce * steps);
        }
        tile<Along::depth>(depth, a_panels + r * depth, kRows, b_panels + step * kCols * depth,
                           c + (i + r) * t.ldc + step * kCols, t.ldc, accumulate, std::min(kRows, group - r),
                           std::min(kCols, width - step * kCols));
      }
    }
  }
}

HWY_ATTR void gemm_tile_simd(const GemmTile& t, float* workspace) {
  if (t.k == 0 && !t.accumulate) {
    for (int64_t i = 0; i < t.m; ++i) std::fill_n(t.c + i * t.ldc, t.n, 0.0F);
  }
  float* a_panels = workspace;
  float* b_panels = workspace + kGemmPanels * std::min(t.k, kGemmDepth);
  for (int64_t j = 0; j < t.n; j += kGemmWidth) {
    for (int64_t k = 0; k < t.k; k += kGemmDepth) {
      gemm_block(t, k, std::min(kGemmDepth, t.k - k), j, std::min(kGemmWidth, t.n - j), b_panels, a_panels);
    }
  }
}

// Sums that are begun side by side, whatever the width of vectors.
constexpr int64_t kChains = 16;
static_assert(kChains % kLanes == 0);

// c[o] = or += <a, row o of b>
template <int64_t kOutputs>
HWY_INLINE HWY_ATTR void dot_rows(const GemmTile& t, const float* b, float* c) {
  constexpr int64_t kVectors = kChains / kLanes;
  const Floats d;
  Vec sum[kOutputs][kVectors];
  for (auto& row : sum) {
    for (Vec& v : row) v = hn::Zero(d);
  }
  int64_t k = 0;
  for (; k + kChains <= t.k; k += kChains) {
    for (int64_t v = 0; v < kVectors; ++v) {
      const Vec x = hn::LoadU(d, t.a + k + v * kLanes);
      for (int64_t o = 0; o < kOutputs; ++o) {
        sum[o][v] = hn::MulAdd(x, hn::LoadU(d, b + o * t.ldb + k + v * kLanes), sum[o][v]);
      }
    }
  }
  for (int64_t o = 0; o < kOutputs; ++o) {
    float chains[kChains];
    for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(sum[o][v], d, chains + v * kLanes);
    for (int64_t i = k; i < t.k; ++i) chains[i - k] += t.a[i] * b[o * t.ldb + i];
    for (int64_t half = kChains / 2; half > 0; half /= 2) {
      for (int64_t i = 0; i < half; ++i) chains[i] += chains[i + half];
    }
    c[o] = t.accumulate ? c[o] + chains[0] : chains[0];
  }
}

HWY_ATTR void gemm_one_row_simd(const GemmTile& t) {
  constexpr int64_t kAtOnce = 4;
  int64_t j = 0;
  for (; j + kAtOnce <= t.n; j += kAtOnce) dot_rows<kAtOnce>(t, t.b + j * t.ldb, t.c + j);
  for (; j < t.n; ++j) dot_rows<1>(t, t.b + j * t.ldb, t.c + j);
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(gemm_tile_simd);
HWY_EXPORT(gemm_one_row_simd);

void gemm_tile(const GemmTile& tile, float* workspace) {
  HWY_DYNAMIC_DISPATCH(gemm_tile_simd)(tile, workspace);
}

void gemm_one_row(const GemmTile& tile) {
  HWY_DYNAMIC_DISPATCH(gemm_one_row_simd)(tile);
}

}  // namespace sluice::cpu
#endif
