// Single-threaded SIMD loops over rows that share a bias, f32; the backend runs ranges in the pool.
#pragma once

#include <cstdint>

namespace sluice::cpu {

// `rows` rows of n floats, `stride` apart, each with a factor.
struct ScaledRows {
  const float* factor = nullptr;  // or null: 1
  int64_t stride = 0;
  int64_t rows = 0;
  int64_t n = 0;
};

// y[m] += factor[m] b
void add_bias(const ScaledRows& shape, float* y, const float* b);
// db += the sum of factor[m] dy[m], in order of m
void sum_scaled(const ScaledRows& shape, const float* dy, float* db);
// dots[m] += <dy[m], b>; the factors are not used
void add_dots(const ScaledRows& shape, const float* dy, const float* b, float* dots);

}  // namespace sluice::cpu
