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

HWY_ATTR void add_bias_simd(const ScaledRows& shape, float* y, const float* b) {
  const int64_t n = shape.n;
  for (int64_t m = 0; m < shape.rows; ++m, y += shape.stride) {
    const V factor = factor_of(shape, m);
    for (int64_t i = 0; i < n; i += kWidth) {
      store(hn::MulAdd(factor, load(b + i, n - i), load(y + i, n - i)), y + i, n - i);
    }
  }
}

HWY_ATTR void sum_scaled_simd(const ScaledRows& shape, const float* dy, float* db) {
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

HWY_ATTR void add_dots_simd(const ScaledRows& shape, const float* dy, const float* b, float* dots) {
  const int64_t n = shape.n;
  for (int64_t m = 0; m < shape.rows; ++m, dy += shape.stride) {
    V even = hn::Zero(F());
    V odd = hn::Zero(F());
    int64_t i = 0;
    for (; i + 2 * kWidth <= n; i += 2 * kWidth) {
      even = hn::MulAdd(hn::LoadU(F(), dy + i), hn::LoadU(F(), b + i), even);
      odd = hn::MulAdd(hn::LoadU(F(), dy + i + kWidth), hn::LoadU(F(), b + i + kWidth), odd);
    }
    for (; i < n; i += kWidth) even = hn::MulAdd(load(dy + i, n - i), load(b + i, n - i), even);
    dots[m] += sum_of(hn::Add(even, odd));
  }
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(add_bias_simd);
HWY_EXPORT(sum_scaled_simd);
HWY_EXPORT(add_dots_simd);

void add_bias(const ScaledRows& shape, float* y, const float* b) {
  HWY_DYNAMIC_DISPATCH(add_bias_simd)(shape, y, b);
}
void sum_scaled(const ScaledRows& shape, const float* dy, float* db) {
  HWY_DYNAMIC_DISPATCH(sum_scaled_simd)(shape, dy, db);
}
void add_dots(const ScaledRows& shape, const float* dy, const float* b, float* dots) {
  HWY_DYNAMIC_DISPATCH(add_dots_simd)(shape, dy, b, dots);
}

}  // namespace sluice::cpu
#endif
