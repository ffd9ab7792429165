// Vectors of f32, in memory f32 or bf16 and with a tail; sums in fixed lanes; exp. Per instruction set (a Highway
// "-inl" header: included once per target).
#if defined(SLUICE_DEVICE_CPU_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_DEVICE_CPU_VECTOR_MATH_INL_H_
#undef SLUICE_DEVICE_CPU_VECTOR_MATH_INL_H_
#else
#define SLUICE_DEVICE_CPU_VECTOR_MATH_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#include "tensor/dtype.h"

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

// Stores the first min(left, kWidth) numbers at p and returns what memory then holds of v.
HWY_INLINE HWY_ATTR V store(V v, float* p, int64_t left) {
  const F f;
  if (left >= kWidth) {
    hn::StoreU(v, f, p);
  } else {
    hn::BlendedStore(v, hn::FirstN(f, static_cast<size_t>(left)), f, p);
  }
  return v;
}

// ---- bf16: the upper half of an f32's bits

using F32Bits = hn::RebindToUnsigned<F>;
using HalfBits = hn::Rebind<uint16_t, F>;

// Masked accesses to 16 bits may touch what is masked out before AVX-512.
HWY_INLINE HWY_ATTR hn::Vec<HalfBits> load_bits(const uint16_t* p, int64_t left) {
  const HalfBits half;
  if (left >= kWidth) return hn::LoadU(half, p);
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN uint16_t some[kWidth] = {};
  std::memcpy(some, p, static_cast<size_t>(left) * sizeof(uint16_t));
  return hn::Load(half, some);
#else
  return hn::MaskedLoad(hn::FirstN(half, static_cast<size_t>(left)), half, p);
#endif
}

HWY_INLINE HWY_ATTR V load(const bf16* p, int64_t left) {
  const F32Bits wide;
  return hn::BitCast(F(), hn::ShiftLeft<16>(hn::PromoteTo(wide, load_bits(&p->bits, left))));
}

// As the constructor of bf16 has them in its upper half: rounded to nearest even, a NaN made quiet. Whole-number
// arithmetic, since the instruction that rounds takes denormals for zeros.
HWY_INLINE HWY_ATTR hn::Vec<F32Bits> nearest_bits(V v) {
  const F32Bits wide;
  const auto bits = hn::BitCast(wide, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(wide, 1));
  const auto nearest = hn::Add(bits, hn::Add(odd, hn::Set(wide, 0x7fff)));
  return hn::IfThenElse(hn::RebindMask(wide, hn::IsNaN(v)), hn::Or(bits, hn::Set(wide, 0x400000)), nearest);
}

// Stores the upper halves of `bits`.
HWY_INLINE HWY_ATTR void store_bits(hn::Vec<F32Bits> bits, bf16* p, int64_t left) {
  const HalfBits half;
  const auto upper = hn::TruncateTo(half, hn::ShiftRight<16>(bits));
  if (left >= kWidth) {
    hn::StoreU(upper, half, &p->bits);
    return;
  }
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN uint16_t some[kWidth];
  hn::Store(upper, half, some);
  std::memcpy(&p->bits, some, static_cast<size_t>(left) * sizeof(uint16_t));
#else
  hn::BlendedStore(upper, hn::FirstN(half, static_cast<size_t>(left)), half, &p->bits);
#endif
}

HWY_INLINE HWY_ATTR V store(V v, bf16* p, int64_t left) {
  const auto bits = nearest_bits(v);
  store_bits(bits, p, left);
  return hn::BitCast(F(), hn::And(bits, hn::Set(F32Bits(), 0xffff0000U)));
}

// ---- Sums

HWY_INLINE HWY_ATTR float sum_of(V v) {
  const F f;
  return hn::GetLane(hn::SumOfLanes(f, v));
}

// A row is summed in kSumLanes lanes, which are then added in one order: AVX2, in two vectors, gives the bits of
// AVX-512. (The scalar target does not: it has no fused multiply-add.)
constexpr int64_t kSumLanes = kWidth == 1 ? 1 : 16;
constexpr int64_t kSumParts = kSumLanes / kWidth;
struct LaneSums {
  V part[kSumParts];
};

HWY_INLINE HWY_ATTR LaneSums zero_sums() {
  LaneSums lanes;
  for (V& part : lanes.part) part = hn::Zero(F());
  return lanes;
}

// The upper half of the lanes is added to the lower one until one is left.
template <class D>
HWY_INLINE HWY_ATTR float sum_halves(D d, hn::Vec<D> v) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (hn::MaxLanes(D()) > 4) {
    const hn::Half<D> half;
    return sum_halves(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
#endif
  return hn::GetLane(hn::SumOfLanes(d, v));  // of four lanes in that order
}

HWY_INLINE HWY_ATTR float sum_of(LaneSums lanes) {
  for (int64_t parts = kSumParts / 2; parts > 0; parts /= 2) {
    for (int64_t j = 0; j < parts; ++j) lanes.part[j] = hn::Add(lanes.part[j], lanes.part[j + parts]);
  }
  return sum_halves(F(), lanes.part[0]);
}

HWY_INLINE HWY_ATTR float sum_of(const LaneSums& a, const LaneSums& b) {
  LaneSums both;
  for (int64_t j = 0; j < kSumParts; ++j) both.part[j] = hn::Add(a.part[j], b.part[j]);
  return sum_of(both);
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
