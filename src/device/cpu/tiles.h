// How products are cut for the pool. No result depends on the cut.
#pragma once

#include <algorithm>
#include <cstdint>

#include "device/cpu/gemm_kernel.h"
#include "device/pool.h"
#include "tensor/tensor.h"

namespace sluice::cpu {

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// [0, n) whole, or in equal parts of at most `most` (the last may be shorter), each a multiple of 32.
struct Cut {
  int64_t part = 0;
  int64_t parts = 0;

  Cut() = default;
  Cut(int64_t n, int64_t most) {
    if (n <= 0) return;
    if (n <= most) {  // without a division: this is asked for every expert
      part = n;
      parts = 1;
      return;
    }
    part = ceil_div(ceil_div(n, ceil_div(n, most)), 32) * 32;
    parts = ceil_div(n, part);
  }
};

// The part of `scratch` that belongs to a worker: a workspace of `bytes` each.
inline float* workspace(const Tensor& scratch, size_t bytes, int worker) {
  return reinterpret_cast<float*>(static_cast<char*>(scratch.raw()) + bytes * static_cast<size_t>(worker));
}

// The whole product of `whole`, tile by tile in the pool. Each worker has `bytes` of `scratch`.
void run_gemm(Pool& pool, const GemmTile& whole, const Tensor& scratch, size_t bytes);

}  // namespace sluice::cpu
