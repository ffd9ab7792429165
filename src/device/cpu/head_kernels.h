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

}  // namespace sluice::cpu
