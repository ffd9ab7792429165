#include "device/cpu/bias_kernels.h"

#include "device/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "device/cpu/bias_kernels.cpp"
#include <hwy/foreach_target.h>  // compiles this file once per target

#include "device/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

HWY_INLINE HWY_ATTR V factor_of(const ScaledRows& shape, int64_t m) {
  return hn::Set(F(), shape.factor != nullptr ? shape.factor[m] : 1.0F);
}

template <class T>
HWY_ATTR void add_bias(const ScaledRows& shape, T* y, const T* b) {
  const int64_t n = shape.n;
  for (int64_t m = 0; m < shape.rows; ++m, y += shape.stride) {
    const V factor = factor_of(shape, m);
    for (int64_t i = 0; i < n; i += kWidth) {
      store(hn::MulAdd(factor, load(b + i, n - i), load(y + i, n - i)), y + i, n - i);
    }
  }
}

template <class T>
HWY_ATTR void sum_scaled(const ScaledRows& shape, const T* dy, float* db) {
  const int64_t n = shape.n;
  const int64_t stride = shape.stride;
  int64_t m = 0;
  // Four rows at a time, so that db is read and written a quarter as often.
  for (; m + 4 <= shape.rows; m += 4, dy += 4 * stride) {
    const V f0 = factor_of(shape, m);
    const V f1 = factor_of(shape, m + 1);
    const V f2 = factor_of(shape, m + 2);
    const V f3 = factor_of(shape, m + 3);
    for (int64_t i = 0; i < n; i += kWidth) {
      V sum = hn::MulAdd(f0, load(dy + i, n - i), load(db + i, n - i));
      sum = hn::MulAdd(f1, load(dy + stride + i, n - i), sum);
      sum = hn::MulAdd(f2, load(dy + 2 * stride + i, n - i), sum);
      store(hn::MulAdd(f3, load(dy + 3 * stride + i, n - i), sum), db + i, n - i);
    }
  }
  for (; m < shape.rows; ++m, dy += stride) {
    const V factor = factor_of(shape, m);
    for (int64_t i = 0; i < n; i += kWidth) {
      store(hn::MulAdd(factor, load(dy + i, n - i), load(db + i, n - i)), db + i, n - i);
    }
  }
}

template <class T>
HWY_ATTR void add_dots(const ScaledRows& shape, const T* dy, const T* b, float* dots) {
  const int64_t n = shape.n;
  for (int64_t m = 0; m < shape.rows; ++m, dy += shape.stride) {
    LaneSums even = zero_sums();
    LaneSums odd = zero_sums();
    int64_t at = 0;
    for (; at + 2 * kSumLanes <= n; at += 2 * kSumLanes) {
      for (int64_t j = 0; j < kSumParts; ++j) {
        const int64_t i = at + j * kWidth, k = i + kSumLanes;
        even.part[j] = hn::MulAdd(load(dy + i, kWidth), load(b + i, kWidth), even.part[j]);
        odd.part[j] = hn::MulAdd(load(dy + k, kWidth), load(b + k, kWidth), odd.part[j]);
      }
    }
    for (; at < n; at += kSumLanes) {
      for (int64_t j = 0, i = at; j < kSumParts && i < n; ++j, i += kWidth) {
        even.part[j] = hn::MulAdd(load(dy + i, n - i), load(b + i, n - i), even.part[j]);
      }
    }
    dots[m] += sum_of(even, odd);
  }
}

template <class T>
constexpr BiasKernels<T> bias_kernels_of() {
  return {.add_bias = add_bias<T>, .sum_scaled = sum_scaled<T>, .add_dots = add_dots<T>};
}

BiasKernels<float> bias_kernels_f32() {
  return bias_kernels_of<float>();
}
BiasKernels<bf16> bias_kernels_bf16() {
  return bias_kernels_of<bf16>();
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(bias_kernels_f32);
HWY_EXPORT(bias_kernels_bf16);

template <>
BiasKernels<float> bias_kernels() {
  return HWY_DYNAMIC_DISPATCH(bias_kernels_f32)();
}
template <>
BiasKernels<bf16> bias_kernels() {
  return HWY_DYNAMIC_DISPATCH(bias_kernels_bf16)();
}

}  // namespace sluice::cpu
#endif
