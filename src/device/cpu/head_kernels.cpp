#include "device/cpu/head_kernels.h"

#include <algorithm>
#include <cmath>

#include "device/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "device/cpu/head_kernels.cpp"
#include <hwy/foreach_target.h>  // compiles this file once per target

#include "device/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

// ---- Attention sinks

// With d = lse - sink:  lse' = log(exp(lse) + exp(sink)) = max + log(1 + exp(-|d|)),  o' = o sigmoid(d)
template <class T>
HWY_ATTR void attention_sink(const SinkRows<T>& op, int64_t begin, int64_t end) {
  const F f;
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t h = 0; h < op.heads; ++h) {
      float& lse = op.lse[t * op.heads + h];
      const auto sink = static_cast<float>(op.sinks[h]);
      const float d = lse - sink;
      const float e = std::exp(-std::abs(d));
      const V factor = hn::Set(f, (d >= 0 ? 1.0F : e) / (1.0F + e));
      lse = std::max(lse, sink) + std::log1p(e);
      T* o = op.o + t * op.o_stride + h * op.dim;
      for (int64_t i = 0; i < op.dim; i += kWidth) {
        store(hn::Mul(load(o + i, op.dim - i), factor), o + i, op.dim - i);
      }
    }
  }
}

// dsink = -sum exp(sink - lse) <do, o>
template <class T>
HWY_ATTR void attention_sink_backward(const SinkRows<T>& op, int64_t begin, int64_t end, float* dsinks) {
  std::fill_n(dsinks, op.heads, 0.0F);
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t h = 0; h < op.heads; ++h) {
      const T* o = op.o + t * op.o_stride + h * op.dim;
      const T* d_o = op.d_o + t * op.d_o_stride + h * op.dim;
      LaneSums inner = zero_sums();
      for (int64_t at = 0; at < op.dim; at += kSumLanes) {
        for (int64_t j = 0, i = at; j < kSumParts && i < op.dim; ++j, i += kWidth) {
          inner.part[j] = hn::MulAdd(load(o + i, op.dim - i), load(d_o + i, op.dim - i), inner.part[j]);
        }
      }
      dsinks[h] -= std::exp(static_cast<float>(op.sinks[h]) - op.lse[t * op.heads + h]) * sum_of(inner);
    }
  }
}

// ---- Multi-head latent attention

// The angles of a token, once for each number of a pair: (x, y) turns to (x, y) cos + (y, x) (-sin, sin).
struct Turn {
  HWY_ALIGN float cos[kMostRotary];
  HWY_ALIGN float sin[kMostRotary];
};

HWY_ATTR void set_turn(const MlaSizes& op, int64_t t, bool inverse, Turn& turn) {
  const int64_t half = op.rotary / 2;
  const float* cos = op.cos_sin + t % op.positions * op.rotary;
  const float* sin = cos + half;
  for (int64_t i = 0; i < half; ++i) {
    turn.cos[2 * i] = turn.cos[2 * i + 1] = cos[i];
    turn.sin[2 * i] = inverse ? sin[i] : -sin[i];
    turn.sin[2 * i + 1] = inverse ? -sin[i] : sin[i];
  }
}

// to = the pairs of `from` turned; may be the same.
template <class From, class To>
HWY_ATTR void rotate_pairs(const Turn& turn, const From* from, To* to, int64_t n) {
  if constexpr (kWidth == 1) {
    for (int64_t i = 0; i < n; i += 2) {
      const auto x = static_cast<float>(from[i]);
      const auto y = static_cast<float>(from[i + 1]);
      to[i] = static_cast<To>(x * turn.cos[i] + y * turn.sin[i]);
      to[i + 1] = static_cast<To>(y * turn.cos[i + 1] + x * turn.sin[i + 1]);
    }
  } else {
    const F f;
    for (int64_t i = 0; i < n; i += kWidth) {
      const V x = load(from + i, n - i);
      const V along = hn::Mul(x, load(turn.cos + i, n - i));
      store(hn::MulAdd(hn::Reverse2(f, x), load(turn.sin + i, n - i), along), to + i, n - i);
    }
  }
}

template <class T>
HWY_ATTR void mla_heads(const MlaRows<T>& op, int64_t begin, int64_t end) {
  Turn turn;
  const int64_t dim = op.nope + op.rotary;
  const int64_t kv_dim = op.nope + op.value;
  for (int64_t t = begin; t < end; ++t) {
    set_turn(op, t, false, turn);
    const T* shared = op.k[t] + op.nope;  // the first head's rotary part
    rotate_pairs(turn, op.k_pe[t], op.k[t] + op.nope, op.rotary);
    for (int64_t h = 0; h < op.heads; ++h) {
      T* q = op.q[t] + h * dim + op.nope;
      rotate_pairs(turn, q, q, op.rotary);
      T* k = op.k[t] + h * dim;
      const T* kv = op.kv[t] + h * kv_dim;
      std::copy_n(kv, op.nope, k);
      if (h > 0) std::copy_n(shared, op.rotary, k + op.nope);
      std::copy_n(kv + op.nope, op.value, op.v[t] + h * op.value);
    }
  }
}

template <class T>
HWY_ATTR void mla_heads_backward(const MlaRowsBackward<T>& op, int64_t begin, int64_t end) {
  Turn turn;
  HWY_ALIGN float sum[kMostRotary];
  const int64_t dim = op.nope + op.rotary;
  const int64_t kv_dim = op.nope + op.value;
  for (int64_t t = begin; t < end; ++t) {
    set_turn(op, t, true, turn);
    std::fill_n(sum, op.rotary, 0.0F);
    for (int64_t h = 0; h < op.heads; ++h) {
      T* dq = op.dq[t] + h * dim + op.nope;
      rotate_pairs(turn, dq, dq, op.rotary);
      const T* dk = op.dk[t] + h * dim;
      T* dkv = op.dkv[t] + h * kv_dim;
      std::copy_n(dk, op.nope, dkv);
      std::copy_n(op.dv[t] + h * op.value, op.value, dkv + op.nope);
      for (int64_t i = 0; i < op.rotary; i += kWidth) {
        const int64_t left = op.rotary - i;
        store(hn::Add(load(sum + i, left), load(dk + op.nope + i, left)), sum + i, left);
      }
    }
    rotate_pairs(turn, sum, op.dk_pe[t], op.rotary);
  }
}

template <class T>
constexpr HeadKernels<T> head_kernels_of() {
  return {.attention_sink = attention_sink<T>,
          .attention_sink_backward = attention_sink_backward<T>,
          .mla_heads = mla_heads<T>,
          .mla_heads_backward = mla_heads_backward<T>};
}

HeadKernels<float> head_kernels_f32() {
  return head_kernels_of<float>();
}
HeadKernels<bf16> head_kernels_bf16() {
  return head_kernels_of<bf16>();
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(head_kernels_f32);
HWY_EXPORT(head_kernels_bf16);

template <>
HeadKernels<float> head_kernels() {
  return HWY_DYNAMIC_DISPATCH(head_kernels_f32)();
}
template <>
HeadKernels<bf16> head_kernels() {
  return HWY_DYNAMIC_DISPATCH(head_kernels_bf16)();
}

}  // namespace sluice::cpu
#endif
