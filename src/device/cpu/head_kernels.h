// Single-threaded SIMD loops over tokens [begin, end) and all of their heads; the backend runs ranges in the pool.
// Heads and sinks are of a storage type T, f32 or bf16; arithmetic, statistics and angles are f32.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace sluice::cpu {

template <class T>
struct SinkRows {
  int64_t heads = 0;
  int64_t dim = 0;
  const T* sinks = nullptr;
  T* o = nullptr;  // in place forward, read backward
  int64_t o_stride = 0;
  float* lse = nullptr;  // likewise, dense
  const T* d_o = nullptr;
  int64_t d_o_stride = 0;
};

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

// A matrix of heads' rows, `stride` numbers apart.
template <class T>
struct TokenRows {
  T* data = nullptr;
  int64_t stride = 0;
  T* operator[](int64_t t) const { return data + t * stride; }
};

template <class T>
struct MlaRows : MlaSizes {
  TokenRows<T> q;
  TokenRows<T> k;
  TokenRows<T> v;
  TokenRows<const T> kv;
  TokenRows<const T> k_pe;
};
template <class T>
struct MlaRowsBackward : MlaSizes {
  TokenRows<T> dq;
  TokenRows<T> dkv;
  TokenRows<T> dk_pe;
  TokenRows<const T> dk;
  TokenRows<const T> dv;
};
template <class T>
struct HeadKernels {
  void (*attention_sink)(const SinkRows<T>& op, int64_t begin, int64_t end);
  // dsinks[heads] = (not +=) the sum over the range.
  void (*attention_sink_backward)(const SinkRows<T>& op, int64_t begin, int64_t end, float* dsinks);
  void (*mla_heads)(const MlaRows<T>& op, int64_t begin, int64_t end);
  void (*mla_heads_backward)(const MlaRowsBackward<T>& op, int64_t begin, int64_t end);
};
// Of the best instruction set that this machine has.
template <class T>
HeadKernels<T> head_kernels();

}  // namespace sluice::cpu
