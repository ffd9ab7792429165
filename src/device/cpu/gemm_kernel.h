// Single-threaded f32 matrix product of one tile; the backend runs tiles in the pool.
#pragma once

#include <cstdint>

namespace sluice::cpu {

// c [m, n] = or += a' b', row-major with row strides; a' = trans_a ? a^T : a, likewise b.
struct GemmTile {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  const float* a = nullptr;
  int64_t lda = 0;
  bool trans_a = false;
  const float* b = nullptr;
  int64_t ldb = 0;
  bool trans_b = false;
  float* c = nullptr;
  int64_t ldc = 0;
  bool accumulate = false;
};

// `workspace` holds gemm_workspace(n, k) bytes (scratch.h), aligned to 64. The sum over k is cut into blocks of
// kGemmDepth, added in order; within a block it is one chain of multiply-adds.
void gemm_tile(const GemmTile& tile, float* workspace);

// Whether a product is of one row with rows of b: b is then read once, where it lies, and packing it is the larger
// part.
inline bool is_one_row(const GemmTile& t) {
  return t.m == 1 && t.trans_b && !t.trans_a;
}
// The product of such a tile. The sum over k is 16 chains of multiply-adds, added up in pairs.
void gemm_one_row(const GemmTile& tile);

}  // namespace sluice::cpu
