// Single-threaded SIMD loops over rows that share a bias; the backend runs ranges in the pool. Rows and biases are of a
// storage type T, f32 or bf16; factors, sums and arithmetic are f32.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace sluice::cpu {

// `rows` rows of n numbers, `stride` apart, each with a factor.
struct ScaledRows {
  const float* factor = nullptr;  // or null: 1
  int64_t stride = 0;
  int64_t rows = 0;
  int64_t n = 0;
};

template <class T>
struct BiasKernels {
  // y[m] += factor[m] b
  void (*add_bias)(const ScaledRows& shape, T* y, const T* b);
  // db += the sum of factor[m] dy[m], in order of m
  void (*sum_scaled)(const ScaledRows& shape, const T* dy, float* db);
  // dots[m] += <dy[m], b>; the factors are not used
  void (*add_dots)(const ScaledRows& shape, const T* dy, const T* b, float* dots);
};
// Of the best instruction set that this machine has.
template <class T>
BiasKernels<T> bias_kernels();

}  // namespace sluice::cpu
