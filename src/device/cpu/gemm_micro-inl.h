// The inner product of every matrix kernel, per instruction set (a Highway "-inl" header: included once per target).
// A tile of rows x kCols results stays in registers while the depth runs; b comes in packed panels of kCols columns; a
// is read by broadcast, along its rows where it lies or down its depth (a transposed matrix, or a packed panel). Every
// result is one chain of multiply-adds in order of depth, so it does not depend on tile shape.
//
// Depth is counted in units of 32 bits: a float (Singles), or two bf16 that are neighbours in depth, the earlier one in
// the low half (Pairs). A chain of pairs adds the later product first, then the earlier one, each with one rounding,
// takes denormals for 0 and makes none: what VDPBF16PS does (Intel's manual, volume 2), and two multiply-adds where
// that instruction is missing. Results are the same bits.
#if defined(SLUICE_DEVICE_CPU_GEMM_MICRO_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_DEVICE_CPU_GEMM_MICRO_INL_H_
#undef SLUICE_DEVICE_CPU_GEMM_MICRO_INL_H_
#else
#define SLUICE_DEVICE_CPU_GEMM_MICRO_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "device/cpu/vector_math-inl.h"
#include "tensor/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Vec = hn::Vec<Floats>;
constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(Floats()));
// At most 2 kRows accumulators, two vectors of b and one of a: 31 of 32 registers with AVX-512, 15 of 16 before.
constexpr int64_t kRows = kLanes == 16 ? 14 : 6;
constexpr int64_t kCols = 2 * kLanes;

// Where element (i, k) of a lies: at a[i * stride + k], or at a[k * stride + i].
enum class Along { rows, depth };

template <class T>
const char* bytes_of(const T* data) {
  return reinterpret_cast<const char*>(data);
}

HWY_INLINE HWY_ATTR Vec broadcast(const char* unit) {
  float value;
  std::memcpy(&value, unit, sizeof(value));
  return hn::Set(Floats(), value);
}

struct Singles {
  using Element = float;
  static constexpr int64_t kPerUnit = 1;

  HWY_INLINE HWY_ATTR static Vec add(Vec a, Vec b, Vec sum) { return hn::MulAdd(a, b, sum); }
  HWY_INLINE HWY_ATTR static Vec add_broadcast(const char* a, Vec b, Vec sum) { return add(broadcast(a), b, sum); }
};

template <bool kInstruction>
struct Pairs {
  using Element = bf16;
  static constexpr int64_t kPerUnit = 2;

  HWY_INLINE HWY_ATTR static Vec add(Vec a, Vec b, Vec sum) {
#if HWY_TARGET == HWY_AVX3
    if constexpr (kInstruction) {
      // It belongs to none of Highway's targets.
      asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));  // NOLINT(hicpp-no-assembler)
      return sum;
    }
#endif
    return multiply_add(earlier(a), earlier(b), multiply_add(later(a), later(b), sum));
  }
  // The same with a unit of a in all lanes, which the instruction reads from memory.
  HWY_INLINE HWY_ATTR static Vec add_broadcast(const char* a, Vec b, Vec sum) {
#if HWY_TARGET == HWY_AVX3
    if constexpr (kInstruction) {
      const auto& unit = *reinterpret_cast<const float(*)[1]>(a);
      asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(sum.raw) : "v"(b.raw), "m"(unit));  // NOLINT(hicpp-no-assembler)
      return sum;
    }
#endif
    return add(broadcast(a), b, sum);
  }

 private:
  HWY_INLINE HWY_ATTR static Vec earlier(Vec pairs) {
    const hn::RebindToUnsigned<Floats> u;
    return hn::BitCast(Floats(), hn::ShiftLeft<16>(hn::BitCast(u, pairs)));
  }
  HWY_INLINE HWY_ATTR static Vec later(Vec pairs) {
    const hn::RebindToUnsigned<Floats> u;
    return hn::BitCast(Floats(), hn::And(hn::BitCast(u, pairs), hn::Set(u, 0xffff0000U)));
  }
  HWY_INLINE HWY_ATTR static Vec multiply_add(Vec a, Vec b, Vec sum) {
    if constexpr (kLanes == 1) {
      return hn::Set(Floats(), std::fma(hn::GetLane(a), hn::GetLane(b), hn::GetLane(sum)));
    } else {
      return hn::MulAdd(a, b, sum);
    }
  }
};

// As fast as the instruction set allows.
using DotPairs = Pairs<HWY_TARGET == HWY_AVX3>;

// While it lives, denormals are taken for 0 and none are made: what products of bf16 do in all their arithmetic.
class WithoutDenormals {
 public:
#if HWY_ARCH_X86
  WithoutDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | kFlush); }
  ~WithoutDenormals() { _mm_setcsr(before_); }
#else
  WithoutDenormals() = default;
  ~WithoutDenormals() = default;
#endif
  WithoutDenormals(const WithoutDenormals&) = delete;
  WithoutDenormals& operator=(const WithoutDenormals&) = delete;

 private:
#if HWY_ARCH_X86
  static constexpr unsigned kFlush = 0x8040;  // flush to zero, denormals are zero
  unsigned before_;
#endif
};

// sums[rows, kCols] = a b over `units` of depth; strides of a are in bytes.
template <class Kind, Along kAlong, int64_t rows>
HWY_INLINE HWY_ATTR void multiply(int64_t units, const char* a, int64_t stride, const float* b, Vec (&left)[rows],
                                  Vec (&right)[rows]) {
  const Floats d;
  constexpr int64_t kUnit = sizeof(float);
#pragma GCC unroll 16
  for (int64_t i = 0; i < rows; ++i) left[i] = right[i] = hn::Zero(d);
  // Two bases, so that all rows are reached by scaled indices.
  constexpr int64_t kHalf = (rows + 1) / 2;
  const char* a_low = a;
  const char* a_high = a + (kAlong == Along::depth ? 0 : kHalf * stride);
#pragma GCC unroll 1
  for (int64_t k = 0; k < units; ++k) {
    const Vec b_left = hn::Load(d, b);
    const Vec b_right = hn::Load(d, b + kLanes);
    b += kCols;
#pragma GCC unroll 16
    for (int64_t i = 0; i < rows; ++i) {
      Vec x;
      if constexpr (kAlong == Along::depth) {
        x = broadcast(a_low + i * kUnit);
      } else {
        x = broadcast(i < kHalf ? a_low + i * stride : a_high + (i - kHalf) * stride);
      }
      left[i] = Kind::add(x, b_left, left[i]);
      right[i] = Kind::add(x, b_right, right[i]);
    }
    if constexpr (kAlong == Along::depth) {
      a_low += stride;
    } else {
      a_low += kUnit;
      a_high += kUnit;
    }
  }
}

// c[kRows, kCols] = or += a b
template <class Kind, Along kAlong, class C>
HWY_INLINE HWY_ATTR void whole_tile(int64_t units, const char* a, int64_t stride, const float* b, C* c, int64_t ldc,
                                    bool accumulate) {
  // Those of the next rows come from memory meanwhile.
#pragma GCC unroll 16
  for (int64_t i = 0; i < kRows; ++i) {
    hwy::Prefetch(c + (i + kRows) * ldc);
    if constexpr (sizeof(C) == sizeof(float)) hwy::Prefetch(c + (i + kRows) * ldc + kLanes);
  }
  Vec left[kRows];
  Vec right[kRows];
  multiply<Kind, kAlong, kRows>(units, a, stride, b, left, right);
#pragma GCC unroll 16
  for (int64_t i = 0; i < kRows; ++i) {
    C* to = c + i * ldc;
    if (accumulate) {
      left[i] = hn::Add(load(to, kLanes), left[i]);
      right[i] = hn::Add(load(to + kLanes, kLanes), right[i]);
    }
    store(left[i], to, kLanes);
    store(right[i], to + kLanes, kLanes);
  }
}

// results[rows, kCols] = a b
template <class Kind, Along kAlong, int64_t rows>
HWY_NOINLINE HWY_ATTR void tile_of_rows(int64_t units, const char* a, int64_t stride, const float* b, float* results) {
  Vec left[rows];
  Vec right[rows];
  multiply<Kind, kAlong, rows>(units, a, stride, b, left, right);
#pragma GCC unroll 16
  for (int64_t i = 0; i < rows; ++i) {
    hn::Store(left[i], Floats(), results + i * kCols);
    hn::Store(right[i], Floats(), results + i * kCols + kLanes);
  }
}

// The one of them that has `rows`.
template <class Kind, Along kAlong, int64_t... i>
HWY_INLINE HWY_ATTR void tile_of(std::integer_sequence<int64_t, i...> /*rows*/, int64_t rows, int64_t units,
                                 const char* a, int64_t stride, const float* b, float* results) {
  (void)((rows == i + 1 && (tile_of_rows<Kind, kAlong, i + 1>(units, a, stride, b, results), true)) || ...);
}

// As whole_tile for rows <= kRows, cols <= kCols.
template <class Kind, Along kAlong, class C>
HWY_NOINLINE HWY_ATTR void edge_tile(int64_t units, const char* a, int64_t stride, const float* b, C* c, int64_t ldc,
                                     bool accumulate, int64_t rows, int64_t cols) {
  HWY_ALIGN float results[kRows * kCols];
  tile_of<Kind, kAlong>(std::make_integer_sequence<int64_t, kRows>(), rows, units, a, stride, b, results);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; j += kLanes) {
      C* to = c + i * ldc + j;
      Vec sums = hn::Load(Floats(), results + i * kCols + j);
      if (accumulate) sums = hn::Add(load(to, cols - j), sums);
      store(sums, to, cols - j);
    }
  }
}

template <class Kind, Along kAlong, class C>
HWY_INLINE HWY_ATTR void tile(int64_t units, const char* a, int64_t stride, const float* b, C* c, int64_t ldc,
                              bool accumulate, int64_t rows, int64_t cols) {
  if (rows == kRows && cols == kCols) {
    whole_tile<Kind, kAlong>(units, a, stride, b, c, ldc, accumulate);
  } else {
    edge_tile<Kind, kAlong>(units, a, stride, b, c, ldc, accumulate, rows, cols);
  }
}

// c[rows <= kRows, cols] = or += a b over `units` of the packed panels of b, which are `panel` floats apart.
template <class Kind, Along kAlong, class C>
HWY_INLINE HWY_ATTR void row_panel(int64_t units, const char* a, int64_t stride, const float* b, int64_t panel,
                                   int64_t rows, int64_t cols, C* c, int64_t ldc, bool accumulate) {
  for (int64_t j = 0; j < cols; j += kCols, b += panel) {
    tile<Kind, kAlong>(units, a, stride, b, c + j, ldc, accumulate, rows, std::min(kCols, cols - j));
  }
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
