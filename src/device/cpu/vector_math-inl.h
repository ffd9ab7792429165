// Vectors of f32 with a tail, and exp, per instruction set (a Highway "-inl" header: included once per target).
#if defined(SLUICE_DEVICE_CPU_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_DEVICE_CPU_VECTOR_MATH_INL_H_
#undef SLUICE_DEVICE_CPU_VECTOR_MATH_INL_H_
#else
#define SLUICE_DEVICE_CPU_VECTOR_MATH_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;
constexpr int64_t kWidth = static_cast<int64_t>(hn::MaxLanes(F()));

// The first min(left, kWidth) floats at p, then zeros.
HWY_INLINE HWY_ATTR V load(const float* p, int64_t left) {
  const F f;
  return left >= kWidth ? hn::LoadU(f, p) : hn::MaskedLoad(hn::FirstN(f, static_cast<size_t>(left)), f, p);
}

HWY_INLINE HWY_ATTR void store(V v, float* p, int64_t left) {
  const F f;
  if (left >= kWidth) {
    hn::StoreU(v, f, p);
  } else {
    hn::BlendedStore(v, hn::FirstN(f, static_cast<size_t>(left)), f, p);
  }
}

HWY_INLINE HWY_ATTR float sum_of(V v) {
  const F f;
  return hn::GetLane(hn::SumOfLanes(f, v));
}

// 2^(n + r) for whole n in [-126, 127] and r in [-1/2, 1/2], to about 2e-7 (Cephes' polynomial).
HWY_INLINE HWY_ATTR V exp2_split(V n, V r) {
  const F f;
  const hn::RebindToSigned<F> i;
  V p = hn::Set(f, 1.535336188319500e-4F);
  p = hn::MulAdd(p, r, hn::Set(f, 1.339887440266574e-3F));
  p = hn::MulAdd(p, r, hn::Set(f, 9.618437357674640e-3F));
  p = hn::MulAdd(p, r, hn::Set(f, 5.550332471162809e-2F));
  p = hn::MulAdd(p, r, hn::Set(f, 2.402264791363012e-1F));
  p = hn::MulAdd(p, r, hn::Set(f, 6.931472028550421e-1F));
  p = hn::MulAdd(p, r, hn::Set(f, 1.0F));
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(i, n), hn::Set(i, 127)));
  return hn::Mul(p, hn::BitCast(f, exponent));
}

// 2^x, x below -126 taken as -126 and above 127 as 127; NaN stays NaN (min and max return their second operand).
HWY_INLINE HWY_ATTR V exp2(V x) {
  const F f;
  x = hn::Max(hn::Set(f, -126.0F), hn::Min(hn::Set(f, 127.0F), x));
  const V n = hn::Round(x);
  return exp2_split(n, hn::Sub(x, n));
}

// e^x, limited as exp2; the argument is reduced in two steps.
HWY_INLINE HWY_ATTR V exp(V x) {
  const F f;
  x = hn::Max(hn::Set(f, -87.0F), hn::Min(hn::Set(f, 88.0F), x));
  const V high = hn::Set(f, 1.4426950216F);  // log2 e in two floats
  const V n = hn::Round(hn::Mul(x, high));
  const V r = hn::MulAdd(x, hn::Set(f, 1.9259629911e-8F), hn::MulSub(x, high, n));
  return exp2_split(n, r);
}

// 1 / (1 + e^-x)
HWY_INLINE HWY_ATTR V sigmoid(V x) {
  const F f;
  const V one = hn::Set(f, 1.0F);
  return hn::Div(one, hn::Add(one, exp(hn::Neg(x))));
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
