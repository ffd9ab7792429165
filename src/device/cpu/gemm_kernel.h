// Single-threaded matrix product of one tile, of f32 and bf16; the backend runs tiles in the pool.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace sluice::cpu {

// A row-major matrix of f32 or bf16 whose rows are `stride` elements apart.
struct Factor {
  const void* data = nullptr;
  DType dtype = DType::f32;
  int64_t stride = 0;
  bool transposed = false;

  // From element (row, col) of the matrix as it is used on.
  Factor at(int64_t row, int64_t col) const;
};
struct Product {
  void* data = nullptr;
  DType dtype = DType::f32;
  int64_t stride = 0;
  bool accumulate = false;

  Product at(int64_t row, int64_t col) const;
};

// c [m, n] = or += a b
struct GemmTile {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  Factor a;
  Factor b;
  Product c;
  bool bf16_dot = false;  // the processor's instruction for products of bf16 may be used (bf16_dot.h)

  // Rows [row, row + rows) and columns [col, col + cols) of the product.
  GemmTile part(int64_t row, int64_t rows, int64_t col, int64_t cols) const;
};

// `workspace` holds gemm_workspace() bytes (scratch.h) of at least these sizes, aligned to 64. The sum over k is cut
// into blocks of kGemmDepth floats or pairs of bf16, added in order; within a block it is one chain of multiply-adds.
// Where both factors are bf16, denormals are taken for 0; with one of f32, the other is widened. A sum is rounded to
// bf16 once.
void gemm_tile(const GemmTile& tile, float* workspace);

// Whether a product is of one row with rows of b: b is then read once, where it lies, and packing it is the larger
// part.
inline bool is_one_row(const GemmTile& t) {
  return t.m == 1 && t.b.transposed && !t.a.transposed;
}
// The product of such a tile. The sum over k is 16 chains of multiply-adds of f32, added up in pairs.
void gemm_one_row(const GemmTile& tile);

// Whether so few rows meet b, both of one type, that packing b costs more than it saves.
bool has_few_rows(const GemmTile& tile);
// The product of such a tile, with the bits of gemm_tile(). Meanwhile it asks memory for b of `next`, which has the
// shape and stride of this one; without data there is none.
void gemm_few_rows(const GemmTile& tile, const Factor& next, float* workspace);

}  // namespace sluice::cpu
