// Single-threaded SIMD loops over numbers that lie one after the other, of a storage type T (f32 or bf16); the backend
// runs ranges in the pool. What is stored is computed in f32 and rounded once.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace sluice::cpu {

template <class T>
struct StreamKernels {
  // y += x
  void (*add)(T* y, const T* x, int64_t n);
  void (*add_to_f32)(float* y, const T* x, int64_t n);
  // Sum of x or of its squares, in f64 lanes of fixed number.
  double (*sum)(const T* x, int64_t n, bool squares);
  // y[d] = sum of rows[j][d], j ascending, for `count` rows.
  void (*sum_rows)(T* y, const T* const* rows, int64_t count, int64_t n);
  // y = x; they may begin at the same place
  void (*from_f32)(T* y, const float* x, int64_t n);
  void (*to_f32)(float* y, const T* x, int64_t n);
};
// Of the best instruction set that this machine has.
template <class T>
StreamKernels<T> stream_kernels();

}  // namespace sluice::cpu
