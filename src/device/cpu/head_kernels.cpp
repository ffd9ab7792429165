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
HWY_ATTR void attention_sink_simd(const SinkRows& op, int64_t begin, int64_t end) {
  const F f;
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t h = 0; h < op.heads; ++h) {
      float& lse = op.lse[t * op.heads + h];
      const float d = lse - op.sinks[h];
      const float e = std::exp(-std::abs(d));
      const V factor = hn::Set(f, (d >= 0 ? 1.0F : e) / (1.0F + e));
      lse = std::max(lse, op.sinks[h]) + std::log1p(e);
      float* o = op.o + t * op.o_stride + h * op.dim;
      for (int64_t i = 0; i < op.dim; i += kWidth) {
        store(hn::Mul(load(o + i, op.dim - i), factor), o + i, op.dim - i);
      }
    }
  }
}

// dsink = -sum exp(sink - lse) <do, o>
HWY_ATTR void attention_sink_backward_simd(const SinkRows& op, int64_t begin, int64_t end, float* dsinks) {
  std::fill_n(dsinks, op.heads, 0.0F);
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t h = 0; h < op.heads; ++h) {
      const float* o = op.o + t * op.o_stride + h * op.dim;
      const float* d_o = op.d_o + t * op.d_o_stride + h * op.dim;
      V inner = hn::Zero(F());
      for (int64_t i = 0; i < op.dim; i += kWidth) {
        inner = hn::MulAdd(load(o + i, op.dim - i), load(d_o + i, op.dim - i), inner);
      }
      dsinks[h] -= std::exp(op.sinks[h] - op.lse[t * op.heads + h]) * sum_of(inner);
    }
  }
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(attention_sink_simd);
HWY_EXPORT(attention_sink_backward_simd);

void attention_sink(const SinkRows& op, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(attention_sink_simd)(op, begin, end);
}
void attention_sink_backward(const SinkRows& op, int64_t begin, int64_t end, float* dsinks) {
  HWY_DYNAMIC_DISPATCH(attention_sink_backward_simd)(op, begin, end, dsinks);
}

}  // namespace sluice::cpu
#endif
