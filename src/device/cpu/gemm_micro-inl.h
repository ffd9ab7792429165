// The inner product of every matrix kernel, per instruction set (a Highway "-inl" header: included once per target).
// A tile of kRows x kCols results stays in registers while the depth runs; b comes in packed panels [depth, kCols]; a
// is read by broadcast, along its rows where it lies or down its depth (a transposed matrix, or a packed panel). Every
// result is one chain of multiply-adds in order of depth, so it does not depend on tile shape.
#if defined(SLUICE_DEVICE_CPU_GEMM_MICRO_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_DEVICE_CPU_GEMM_MICRO_INL_H_
#undef SLUICE_DEVICE_CPU_GEMM_MICRO_INL_H_
#else
#define SLUICE_DEVICE_CPU_GEMM_MICRO_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Vec = hn::Vec<Floats>;
constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(Floats()));
// 2 kRows accumulators, two vectors of b and one of a: 31 of 32 registers with AVX-512, 15 of 16 before.
constexpr int64_t kRows = kLanes == 16 ? 14 : 6;
constexpr int64_t kCols = 2 * kLanes;

// Where element (i, k) of a lies: at a[i * stride + k], or at a[k * stride + i].
enum class Along { rows, depth };

// c[kRows, kCols] (+)= a b over `depth`.
template <Along kAlong>
HWY_INLINE HWY_ATTR void micro_tile(int64_t depth, const float* a, int64_t stride, const float* b, float* c,
                                    int64_t ldc, bool accumulate) {
  const Floats d;
  Vec left[kRows];
  Vec right[kRows];
#pragma GCC unroll 16
  for (int64_t i = 0; i < kRows; ++i) left[i] = right[i] = hn::Zero(d);
  // Two bases, so that all rows are reached by scaled indices.
  const float* a_low = a;
  const float* a_high = a + (kAlong == Along::depth ? 0 : kRows / 2 * stride);
#pragma GCC unroll 1
  for (int64_t k = 0; k < depth; ++k) {
    const Vec b_left = hn::Load(d, b);
    const Vec b_right = hn::Load(d, b + kLanes);
    b += kCols;
#pragma GCC unroll 16
    for (int64_t i = 0; i < kRows; ++i) {
      Vec x;
      if constexpr (kAlong == Along::depth) {
        x = hn::Set(d, a_low[i]);
      } else {
        x = hn::Set(d, i < kRows / 2 ? a_low[i * stride] : a_high[(i - kRows / 2) * stride]);
      }
      left[i] = hn::MulAdd(x, b_left, left[i]);
      right[i] = hn::MulAdd(x, b_right, right[i]);
    }
    if constexpr (kAlong == Along::depth) {
      a_low += stride;
    } else {
      ++a_low;
      ++a_high;
    }
  }
#pragma GCC unroll 16
  for (int64_t i = 0; i < kRows; ++i) {
    float* to = c + i * ldc;
    if (accumulate) {
      left[i] = hn::Add(hn::LoadU(d, to), left[i]);
      right[i] = hn::Add(hn::LoadU(d, to + kLanes), right[i]);
    }
    hn::StoreU(left[i], d, to);
    hn::StoreU(right[i], d, to + kLanes);
  }
}

// As micro_tile for the first `rows` x `cols` results; a must be readable for kRows rows all the same.
template <Along kAlong>
HWY_NOINLINE HWY_ATTR void edge_tile(int64_t depth, const float* a, int64_t stride, const float* b, float* c,
                                     int64_t ldc, bool accumulate, int64_t rows, int64_t cols) {
  HWY_ALIGN float results[kRows * kCols];
  micro_tile<kAlong>(depth, a, stride, b, results, kCols, false);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      float& to = c[i * ldc + j];
      to = accumulate ? to + results[i * kCols + j] : results[i * kCols + j];
    }
  }
}

template <Along kAlong>
HWY_INLINE HWY_ATTR void tile(int64_t depth, const float* a, int64_t stride, const float* b, float* c, int64_t ldc,
                              bool accumulate, int64_t rows, int64_t cols) {
  if (rows == kRows && cols == kCols) {
    // The results to the right are next.
#pragma GCC unroll 16
    for (int64_t i = 0; i < kRows; ++i) {
      hwy::Prefetch(c + i * ldc + kCols);
      hwy::Prefetch(c + i * ldc + kCols + kLanes);
    }
    micro_tile<kAlong>(depth, a, stride, b, c, ldc, accumulate);
  } else {
    edge_tile<kAlong>(depth, a, stride, b, c, ldc, accumulate, rows, cols);
  }
}

// to[k][j] = b[k][j]: one panel of `cols` <= kCols columns, padded with zeros.
HWY_INLINE HWY_ATTR void pack_panel(const float* b, int64_t ldb, int64_t depth, int64_t cols, float* HWY_RESTRICT to) {
  const Floats d;
  if (cols == kCols) {
    for (int64_t k = 0; k < depth; ++k) {
      hn::Store(hn::LoadU(d, b + k * ldb), d, to + k * kCols);
      hn::Store(hn::LoadU(d, b + k * ldb + kLanes), d, to + k * kCols + kLanes);
    }
    return;
  }
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t j = 0; j < kCols; ++j) to[k * kCols + j] = j < cols ? b[k * ldb + j] : 0.0F;
  }
}

#if HWY_TARGET != HWY_SCALAR
// to[k][j] = b[j][k] for four values of j, kWidth to a row of `to`.
template <int64_t kWidth>
HWY_INLINE HWY_ATTR void pack_four(const float* b, int64_t ldb, int64_t depth, float* HWY_RESTRICT to) {
  const hn::FixedTag<float, 4> d;
  int64_t k = 0;
  for (; k + 4 <= depth; k += 4, to += 4 * kWidth) {
    const auto r0 = hn::LoadU(d, b + k);
    const auto r1 = hn::LoadU(d, b + ldb + k);
    const auto r2 = hn::LoadU(d, b + 2 * ldb + k);
    const auto r3 = hn::LoadU(d, b + 3 * ldb + k);
    const auto low01 = hn::InterleaveLower(d, r0, r1);
    const auto low23 = hn::InterleaveLower(d, r2, r3);
    const auto high01 = hn::InterleaveUpper(d, r0, r1);
    const auto high23 = hn::InterleaveUpper(d, r2, r3);
    hn::StoreU(hn::ConcatLowerLower(d, low23, low01), d, to);
    hn::StoreU(hn::ConcatUpperUpper(d, low23, low01), d, to + kWidth);
    hn::StoreU(hn::ConcatLowerLower(d, high23, high01), d, to + 2 * kWidth);
    hn::StoreU(hn::ConcatUpperUpper(d, high23, high01), d, to + 3 * kWidth);
  }
  for (; k < depth; ++k, to += kWidth) {
    for (int64_t j = 0; j < 4; ++j) to[j] = b[j * ldb + k];
  }
}
#endif

// to[k][j] = b[j][k], kWidth values of j to a row of `to`; j from `cols` on are zeros.
template <int64_t kWidth>
HWY_INLINE HWY_ATTR void pack_transposed(const float* b, int64_t ldb, int64_t depth, int64_t cols,
                                         float* HWY_RESTRICT to) {
  int64_t j = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; j + 4 <= cols; j += 4) pack_four<kWidth>(b + j * ldb, ldb, depth, to + j);
#endif
  for (; j < kWidth; ++j) {
    for (int64_t k = 0; k < depth; ++k) to[k * kWidth + j] = j < cols ? b[j * ldb + k] : 0.0F;
  }
}

// Panels of b [depth, cols] (or of its transpose, if b is [cols, depth]) one after another.
HWY_INLINE HWY_ATTR void pack_panels(const float* b, int64_t ldb, bool transposed, int64_t depth, int64_t cols,
                                     float* to) {
  for (int64_t j = 0; j < cols; j += kCols, to += depth * kCols) {
    const int64_t width = std::min(kCols, cols - j);
    if (transposed) {
      pack_transposed<kCols>(b + j * ldb, ldb, depth, width, to);
    } else {
      pack_panel(b + j, ldb, depth, width, to);
    }
  }
}

// Panels [depth, kRows] of the columns of a [depth, cols] one after another, padded with zeros: a row of a is read
// whole, so that its cache lines are used at once.
HWY_INLINE HWY_ATTR void pack_row_panels(const float* a, int64_t lda, int64_t depth, int64_t cols, float* to) {
  const int64_t whole = cols / kRows;
  const int64_t rest = cols % kRows;
  for (int64_t k = 0; k < depth; ++k) {
    const float* from = a + k * lda;
    float* panel = to + k * kRows;
    for (int64_t p = 0; p < whole; ++p, from += kRows, panel += depth * kRows) std::copy_n(from, kRows, panel);
    if (rest > 0) std::fill(std::copy_n(from, rest, panel), panel + kRows, 0.0F);
  }
}

// c[rows <= kRows, cols] (+)= a b over `depth` rows of the packed panels of b, which are `panel` floats apart.
template <Along kAlong>
HWY_INLINE HWY_ATTR void row_panel(int64_t depth, const float* a, int64_t stride, const float* b, int64_t panel,
                                   int64_t rows, int64_t cols, float* c, int64_t ldc, bool accumulate) {
  for (int64_t j = 0; j < cols; j += kCols, b += panel) {
    tile<kAlong>(depth, a, stride, b, c + j, ldc, accumulate, rows, std::min(kCols, cols - j));
  }
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
