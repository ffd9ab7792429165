// Single-threaded SIMD loops over tokens [begin, end) and all of their heads, f32; the backend runs ranges in the pool.
#pragma once

#include <cstdint>

namespace sluice::cpu {

struct SinkRows {
  int64_t heads = 0;
  int64_t dim = 0;
  const float* sinks = nullptr;
  float* o = nullptr;  // in place forward, read backward
  int64_t o_stride = 0;
  float* lse = nullptr;  // likewise, dense
  const float* d_o = nullptr;
  int64_t d_o_stride = 0;
};
void attention_sink(const SinkRows& op, int64_t begin, int64_t end);
// dsinks[heads] = (not +=) the sum over the range.
void attention_sink_backward(const SinkRows& op, int64_t begin, int64_t end, float* dsinks);

// Columns of a head: without and with rotation, and of a value.
struct MlaSizes {
  int64_t heads = 0;
  int64_t nope = 0;
  int64_t rotary = 0;  // at most kMostRotary
  int64_t value = 0;
  const float* cos_sin = nullptr;
  int64_t positions = 0;
};
inline constexpr int64_t kMostRotary = 256;

// A matrix of heads' rows, `stride` floats apart.
template <class T>
struct TokenRows {
  T* data = nullptr;
  int64_t stride = 0;
  T* operator[](int64_t t) const { return data + t * stride; }
};

struct MlaRows : MlaSizes {
  TokenRows<float> q;
  TokenRows<float> k;
  TokenRows<float> v;
  TokenRows<const float> kv;
  TokenRows<const float> k_pe;
};
void mla_heads(const MlaRows& op, int64_t begin, int64_t end);

struct MlaRowsBackward : MlaSizes {
  TokenRows<float> dq;
  TokenRows<float> dkv;
  TokenRows<float> dk_pe;
  TokenRows<const float> dk;
  TokenRows<const float> dv;
};
void mla_heads_backward(const MlaRowsBackward& op, int64_t begin, int64_t end);

}  // namespace sluice::cpu
