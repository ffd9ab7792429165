#include "device/cpu/adamw_kernels.h"

#include <algorithm>

#include "device/cpu/simd_targets.h"
#include "ops/optimizer.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "device/cpu/adamw_kernels.cpp"
#include <hwy/foreach_target.h>  // compiles this file once per target

#include "device/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

// Stored as sluice::round_stochastically rounds.
HWY_INLINE HWY_ATTR void store_rounded_at_random(V v, const uint16_t* random, bf16* p, int64_t left) {
  const F32Bits wide;
  const auto bits = hn::BitCast(wide, v);
  const auto infinite = hn::Set(wide, 0x7f800000U);
  const auto drawn = hn::Add(bits, hn::PromoteTo(wide, load_bits(random, left)));
  store_bits(hn::IfThenElse(hn::Eq(hn::And(bits, infinite), infinite), nearest_bits(v), drawn), p, left);
}

template <class W, class M>
HWY_ATTR void adamw_range(const AdamWStep& step, const AdamWRange<W, M>& range, int64_t n) {
  const F f;
  const auto [w, master, m, v, g, random] = range;
  const V beta1 = hn::Set(f, step.beta1);
  const V beta2 = hn::Set(f, step.beta2);
  const V new1 = hn::Set(f, step.new1);
  const V new2 = hn::Set(f, step.new2);
  const V clip = hn::Set(f, step.clip);
  const V eps = hn::Set(f, step.eps);
  const V rate = hn::Set(f, step.rate);
  const V coupled = hn::Set(f, step.coupled);
  const V kept = hn::Set(f, 1.0F - step.decoupled);
  const V inverse2 = hn::Set(f, step.inverse_correction2);
  for (int64_t i = 0; i < n; i += kWidth) {
    const int64_t left = n - i;
    const V old = master != nullptr ? load(master + i, left) : load(w + i, left);
    const V gradient = hn::MulAdd(coupled, old, hn::Mul(load(g + i, left), clip));
    const V first = hn::MulAdd(beta1, load(m + i, left), hn::Mul(new1, gradient));
    const V second = hn::MulAdd(beta2, load(v + i, left), hn::Mul(new2, hn::Mul(gradient, gradient)));
    const V scale = hn::Add(hn::Sqrt(hn::Mul(second, inverse2)), eps);
    const V updated = hn::Sub(hn::Mul(old, kept), hn::Div(hn::Mul(rate, first), scale));
    store(first, m + i, left);
    store(second, v + i, left);
    if (master != nullptr) store(updated, master + i, left);
    if constexpr (sizeof(W) == sizeof(bf16)) {
      if (random != nullptr) {
        store_rounded_at_random(updated, random + i, w + i, left);
        continue;
      }
    }
    store(updated, w + i, left);
  }
}

#if HWY_TARGET == HWY_SCALAR

void rounding_bits_simd(uint16_t* bits, uint64_t key, uint64_t step, int64_t first, int64_t count) {
  for (int64_t b = 0; b < count; ++b, bits += 8) {
    const Philox::Block block = sluice::rounding_bits(key, step, first + b);
    std::memcpy(bits, block.data(), sizeof(block));
  }
}

#else

using Words = hn::Vec<F32Bits>;

// The two halves of the products of 32 bits.
struct Product {
  Words low;
  Words high;
};
HWY_INLINE HWY_ATTR Product multiply(Words x, uint32_t by) {
  const F32Bits words;
  const hn::Repartition<uint64_t, F32Bits> pairs;
  const auto factor = hn::Set(words, by);
  const auto even = hn::MulEven(x, factor);
  const auto odd = hn::MulEven(hn::BitCast(words, hn::ShiftRight<32>(hn::BitCast(pairs, x))), factor);
  return {hn::OddEven(hn::BitCast(words, hn::ShiftLeft<32>(odd)), hn::BitCast(words, even)),
          hn::OddEven(hn::BitCast(words, odd), hn::BitCast(words, hn::ShiftRight<32>(even)))};
}

// Philox4x32-10 (base/philox.h) at as many counters as a vector has lanes.
HWY_ATTR void rounding_bits_simd(uint16_t* bits, uint64_t key, uint64_t step, int64_t first, int64_t count) {
  const F32Bits words;
  const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
  const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
  for (int64_t b = 0; b < count; b += kWidth) {
    const auto at = static_cast<uint64_t>(first + b);
    const Words start = hn::Set(words, low(at));
    Words c0 = hn::Add(start, hn::Iota(words, 0));
    const Words carry = hn::IfThenElseZero(hn::Lt(c0, start), hn::Set(words, 1));
    Words c1 = hn::Add(hn::Set(words, high(at)), carry);
    Words c2 = hn::Set(words, low(step));
    Words c3 = hn::Set(words, high(step));
    uint32_t k0 = low(key);
    uint32_t k1 = high(key);
    for (int round = 0; round < 10; ++round) {
      const Product p0 = multiply(c0, 0xD2511F53);
      const Product p1 = multiply(c2, 0xCD9E8D57);
      c0 = hn::Xor(hn::Xor(p1.high, c1), hn::Set(words, k0));
      c1 = p1.low;
      c2 = hn::Xor(hn::Xor(p0.high, c3), hn::Set(words, k1));
      c3 = p0.low;
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    HWY_ALIGN uint32_t blocks[4 * kWidth];
    hn::StoreInterleaved4(c0, c1, c2, c3, words, blocks);
    std::memcpy(bits + 8 * b, blocks, static_cast<size_t>(std::min(kWidth, count - b)) * sizeof(Philox::Block));
  }
}

#endif

HWY_ATTR void adamw_f32_f32(const AdamWStep& step, const AdamWRange<float, float>& range, int64_t n) {
  adamw_range(step, range, n);
}
HWY_ATTR void adamw_f32_bf16(const AdamWStep& step, const AdamWRange<float, bf16>& range, int64_t n) {
  adamw_range(step, range, n);
}
HWY_ATTR void adamw_bf16_f32(const AdamWStep& step, const AdamWRange<bf16, float>& range, int64_t n) {
  adamw_range(step, range, n);
}
HWY_ATTR void adamw_bf16_bf16(const AdamWStep& step, const AdamWRange<bf16, bf16>& range, int64_t n) {
  adamw_range(step, range, n);
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(adamw_f32_f32);
HWY_EXPORT(adamw_f32_bf16);
HWY_EXPORT(adamw_bf16_f32);
HWY_EXPORT(adamw_bf16_bf16);
HWY_EXPORT(rounding_bits_simd);

template <>
void adamw(const AdamWStep& step, const AdamWRange<float, float>& range, int64_t n) {
  HWY_DYNAMIC_DISPATCH(adamw_f32_f32)(step, range, n);
}
template <>
void adamw(const AdamWStep& step, const AdamWRange<float, bf16>& range, int64_t n) {
  HWY_DYNAMIC_DISPATCH(adamw_f32_bf16)(step, range, n);
}
template <>
void adamw(const AdamWStep& step, const AdamWRange<bf16, float>& range, int64_t n) {
  HWY_DYNAMIC_DISPATCH(adamw_bf16_f32)(step, range, n);
}
template <>
void adamw(const AdamWStep& step, const AdamWRange<bf16, bf16>& range, int64_t n) {
  HWY_DYNAMIC_DISPATCH(adamw_bf16_bf16)(step, range, n);
}
void rounding_bits(uint16_t* bits, uint64_t key, uint64_t step, int64_t first, int64_t count) {
  HWY_DYNAMIC_DISPATCH(rounding_bits_simd)(bits, key, step, first, count);
}

}  // namespace sluice::cpu
#endif
