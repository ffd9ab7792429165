#include "device/cpu/stream_kernels.h"

#include "device/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "device/cpu/stream_kernels.cpp"
#include <hwy/foreach_target.h>  // compiles this file once per target

#include "device/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

template <class Y, class X>
HWY_ATTR void add(Y* y, const X* x, int64_t n) {
  for (int64_t i = 0; i < n; i += kWidth) {
    store(hn::Add(load(y + i, n - i), load(x + i, n - i)), y + i, n - i);
  }
}

template <class Y, class X>
HWY_ATTR void convert(Y* y, const X* x, int64_t n) {
  for (int64_t i = 0; i < n; i += kWidth) store(load(x + i, n - i), y + i, n - i);
}

template <class D>
HWY_INLINE HWY_ATTR hn::Vec<D> load_wide(D f64, const float* x) {
  return hn::PromoteTo(f64, hn::LoadU(hn::Rebind<float, D>(), x));
}
template <class D>
HWY_INLINE HWY_ATTR hn::Vec<D> load_wide(D f64, const bf16* x) {
  const hn::Rebind<uint32_t, D> bits;
  const auto upper = hn::PromoteTo(bits, hn::LoadU(hn::Rebind<uint16_t, D>(), &x->bits));
  return hn::PromoteTo(f64, hn::BitCast(hn::Rebind<float, D>(), hn::ShiftLeft<16>(upper)));
}

// Sixteen sums whatever the vector's width, so that the result is the same on every machine.
template <bool kSquares, class T>
HWY_ATTR double sum_lanes(const T* x, int64_t n) {
  const hn::ScalableTag<double> f64;
  constexpr int64_t kSums = 16;
  constexpr auto kStep = static_cast<int64_t>(hn::MaxLanes(hn::ScalableTag<double>()));
  constexpr int64_t kVectors = kSums / kStep;
  hn::Vec<decltype(f64)> sums[kVectors];
#pragma GCC unroll 16
  for (int64_t j = 0; j < kVectors; ++j) sums[j] = hn::Zero(f64);
  int64_t i = 0;
#pragma GCC unroll 1
  for (; i + kSums <= n; i += kSums) {
#pragma GCC unroll 16
    for (int64_t j = 0; j < kVectors; ++j) {
      const auto value = load_wide(f64, x + i + j * kStep);
      sums[j] = hn::Add(sums[j], kSquares ? hn::Mul(value, value) : value);
    }
  }
  double lanes[kSums];
  for (int64_t j = 0; j < kVectors; ++j) hn::StoreU(sums[j], f64, lanes + j * kStep);
  for (int64_t j = 0; i < n; ++i, ++j) {
    const auto value = static_cast<double>(x[i]);
    lanes[j] += kSquares ? value * value : value;
  }
  double total = 0;
  for (const double part : lanes) total += part;
  return total;
}

template <class T>
HWY_ATTR double sum(const T* x, int64_t n, bool squares) {
  return squares ? sum_lanes<true>(x, n) : sum_lanes<false>(x, n);
}

template <class T>
HWY_ATTR void sum_rows(T* y, const T* const* rows, int64_t count, int64_t n) {
  for (int64_t i = 0; i < n; i += kWidth) {
    V total = hn::Zero(F());
    for (int64_t j = 0; j < count; ++j) total = hn::Add(total, load(rows[j] + i, n - i));
    store(total, y + i, n - i);
  }
}

template <class T>
constexpr StreamKernels<T> stream_kernels_of() {
  return {.add = add<T, T>,
          .add_to_f32 = add<float, T>,
          .sum = sum<T>,
          .sum_rows = sum_rows<T>,
          .from_f32 = convert<T, float>,
          .to_f32 = convert<float, T>};
}

StreamKernels<float> stream_kernels_f32() {
  return stream_kernels_of<float>();
}
StreamKernels<bf16> stream_kernels_bf16() {
  return stream_kernels_of<bf16>();
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(stream_kernels_f32);
HWY_EXPORT(stream_kernels_bf16);

template <>
StreamKernels<float> stream_kernels() {
  return HWY_DYNAMIC_DISPATCH(stream_kernels_f32)();
}
template <>
StreamKernels<bf16> stream_kernels() {
  return HWY_DYNAMIC_DISPATCH(stream_kernels_bf16)();
}

}  // namespace sluice::cpu
#endif
