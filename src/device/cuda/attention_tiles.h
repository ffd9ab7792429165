// What attention's kernels are made of. A block owns a tile of rows, and tiles of partners go through shared memory one
// after the other: of keys for the rows of queries, of queries for the rows of keys. 16 threads share each row. A
// thread owns rows group, group + 8, ... of the tile, in products with partners its partners member, member + 16, ...,
// and of the results its four columns of each 64. Included by .cu files only.
#pragma once

#include "device/cuda/kernel.h"

namespace sluice::cuda {

inline constexpr int kMembers = 16, kGroups = 8;
inline constexpr int kAttentionThreads = kMembers * kGroups;
// Elements of shared memory that are loaded at once.
inline constexpr int kQuad = 4;
// Columns that the threads of a row cover at once.
inline constexpr int kSpan = kMembers * kQuad;

// A thread's share, for heads of up to kSpan * kSpans columns and kResults results of that width: their sums take 64
// registers or fewer, and what is in shared memory 160 KiB or less.
template <class A, int kSpans_, int kResults>
struct Tiling {
  static constexpr int kSpans = kSpans_;
  static constexpr int kWords = sizeof(A) / sizeof(float);
  static constexpr int kRows = (kSpans * kResults > 4 ? 2 : 4) / kWords;
  static constexpr int kPartners = (kSpans > 2 ? 2 : 4) / kWords;
  static constexpr int kTileRows = kRows * kGroups;
  static constexpr int kTilePartners = kPartners * kMembers;
  static constexpr int kWeightPitch = kTilePartners + kQuad;
};
template <class A, int kSpans>
using QueryTiling = Tiling<A, kSpans, 1>;  // o or dq
template <class A, int kSpans>
using KeyTiling = Tiling<A, kSpans, 2>;  // dk and dv

constexpr int padded(int64_t dim) {
  return static_cast<int>((dim + kQuad - 1) / kQuad * kQuad);
}
// Elements from row to row of a tile: an odd number of quads, so that the threads of a row hit all banks.
constexpr int pitch_of(int64_t dim) {
  return (padded(dim) / kQuad | 1) * kQuad;
}

__device__ __forceinline__ int member() {
  return static_cast<int>(threadIdx.x) % kMembers;
}
__device__ __forceinline__ int group() {
  return static_cast<int>(threadIdx.x) / kMembers;
}

// Rows of [T, n, d]: row t of head h is at data + t * stride + h * dim.
template <class T>
struct HeadRows {
  T* data;
  int64_t stride;
  int dim;
  bool pieces;  // all heads are made of 16-byte pieces
  __device__ __forceinline__ T* at(int64_t row, int64_t head) const { return data + row * stride + head * dim; }
};

template <int N, int kCount, class T, class A>
__device__ __forceinline__ void load_tile_by(A* to, const HeadRows<const T>& from, int64_t first, int64_t head,
                                             int64_t rows) {
  const int pitch = pitch_of(from.dim), width = padded(from.dim);
  for (int col = member() * N; col < width; col += kMembers * N) {
#pragma unroll 4
    for (int row = group(); row < kCount; row += kGroups) {
      Piece<T, N> piece{};
      if (row < rows && col < from.dim) piece = load_piece<T, N>(from.at(first + row, head) + col);
      constexpr int kAtOnce = N < kQuad ? N : kQuad;
      for (int i = 0; i < N; i += kAtOnce) {
        Piece<A, kAtOnce> loaded;
        for (int j = 0; j < kAtOnce; ++j) loaded.at[j] = load(piece.at[i + j]);
        store_piece(to + row * pitch + col + i, loaded);
      }
    }
  }
}
// Rows [first, first + kCount) of a head into shared memory, zeros from the row `rows` on and behind the last column.
template <int kCount, class T, class A>
__device__ __forceinline__ void load_tile(A* to, const HeadRows<const T>& from, int64_t first, int64_t head,
                                          int64_t rows) {
  if (kPiece<T> > 1 && from.pieces) {
    load_tile_by<kPiece<T>, kCount>(to, from, first, head, rows);
  } else {
    load_tile_by<1, kCount>(to, from, first, head, rows);
  }
}

// out[r][p] = <row r, partner p> of this thread.
template <int kRows, int kPartners, class A>
__device__ __forceinline__ void multiply_tile(A (&out)[kRows][kPartners], const A* rows, const A* partners, int dim) {
  const int pitch = pitch_of(dim);
  rows += group() * pitch;
  partners += member() * pitch;
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPartners; ++p) out[r][p] = 0;
  }
  for (int c = 0; c < dim; c += kQuad) {
    Piece<A, kQuad> x[kRows];
    for (int r = 0; r < kRows; ++r) x[r] = load_piece<A, kQuad>(rows + r * kGroups * pitch + c);
    for (int p = 0; p < kPartners; ++p) {
      const auto y = load_piece<A, kQuad>(partners + p * kMembers * pitch + c);
      for (int j = 0; j < kQuad; ++j) {
        for (int r = 0; r < kRows; ++r) out[r][p] += x[r].at[j] * y.at[j];
      }
    }
  }
}

// The weights of this thread's rows and partners, to be read by all threads of the rows, who are in one warp.
template <class Tile, class A>
__device__ __forceinline__ void share_weights(A* to, const A (&weights)[Tile::kRows][Tile::kPartners]) {
  __syncwarp();  // those there before have been used
  for (int r = 0; r < Tile::kRows; ++r) {
    for (int p = 0; p < Tile::kPartners; ++p) {
      to[(group() + r * kGroups) * Tile::kWeightPitch + member() + p * kMembers] = weights[r][p];
    }
  }
  __syncwarp();
}

// sums[r][k] += sum over the tile's partners p of weights[r][p] * partners[p], in this thread's columns.
template <class Tile, class A>
__device__ __forceinline__ void add_weighted(Piece<A, kQuad> (&sums)[Tile::kRows][Tile::kSpans], const A* weights,
                                             const A* partners, int dim) {
  const int pitch = pitch_of(dim);
  weights += group() * Tile::kWeightPitch;
  int col[Tile::kSpans];
  for (int k = 0; k < Tile::kSpans; ++k) {
    const int c = k * kSpan + member() * kQuad;
    col[k] = c < dim ? c : 0;  // never stored
  }
  for (int first = 0; first < Tile::kTilePartners; first += kQuad) {
    Piece<A, kQuad> w[Tile::kRows];
    for (int r = 0; r < Tile::kRows; ++r) {
      w[r] = load_piece<A, kQuad>(weights + r * kGroups * Tile::kWeightPitch + first);
    }
    for (int p = 0; p < kQuad; ++p) {
      for (int k = 0; k < Tile::kSpans; ++k) {
        const auto x = load_piece<A, kQuad>(partners + (first + p) * pitch + col[k]);
        for (int r = 0; r < Tile::kRows; ++r) {
          for (int j = 0; j < kQuad; ++j) sums[r][k].at[j] += w[r].at[p] * x.at[j];
        }
      }
    }
  }
}

// Row r of this thread times factor[r] to row first + group + 8 r of a head, if that is below `rows`.
template <class Tile, class T, class A>
__device__ __forceinline__ void store_tile(const HeadRows<T>& to,
                                           const Piece<A, kQuad> (&sums)[Tile::kRows][Tile::kSpans],
                                           const A (&factor)[Tile::kRows], int64_t first, int64_t head, int64_t rows) {
  for (int r = 0; r < Tile::kRows; ++r) {
    const int row = group() + r * kGroups;
    if (row >= rows) return;
    for (int k = 0; k < Tile::kSpans; ++k) {
      const int col = k * kSpan + member() * kQuad;
      Piece<T, kQuad> out;
      for (int j = 0; j < kQuad; ++j) out.at[j] = store<T>(sums[r][k].at[j] * factor[r]);
      T* at = to.at(first + row, head) + col;
      if (kPiece<T> > 1 && to.pieces && col < to.dim) {
        store_piece(at, out);
        continue;
      }
      for (int j = 0; j < kQuad; ++j) {
        if (col + j < to.dim) at[j] = out.at[j];
      }
    }
  }
}

// Over the threads of a row; a NaN stays.
template <class A>
__device__ __forceinline__ A row_max(A x) {
  for (int bits = kMembers / 2; bits > 0; bits /= 2) {
    const A y = __shfl_xor_sync(kAllLanes, x, bits);
    x = y > x || y != y ? y : x;
  }
  return x;
}
template <class A>
__device__ __forceinline__ A row_sum(A x) {
  for (int bits = kMembers / 2; bits > 0; bits /= 2) x += __shfl_xor_sync(kAllLanes, x, bits);
  return x;
}

}  // namespace sluice::cuda
