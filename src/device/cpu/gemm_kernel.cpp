#include "device/cpu/gemm_kernel.h"

#include "device/cpu/scratch.h"
#include "device/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "device/cpu/gemm_kernel.cpp"
#include <hwy/foreach_target.h>  // compiles this file once per target

#include "device/cpu/gemm_pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

static_assert(kGemmWidth % kCols == 0 && kGemmPanels >= kCols);
// Row panels of a transposed a that are packed together, so that its cache lines are used whole.
constexpr int64_t kPanelsAtOnce = kGemmPanels / kRows;

// Asks for the part of a block [rows, bytes] that belongs to step `step` of `steps`: the next block of a comes from
// memory while this one is multiplied.
HWY_INLINE HWY_ATTR void prefetch_part(const char* block, int64_t stride, int64_t rows, int64_t bytes, int64_t step,
                                       int64_t steps) {
  constexpr int64_t kLine = 64;
  const int64_t lines = (bytes + kLine - 1) / kLine;
  const int64_t each = (rows * lines + steps - 1) / steps;
  const int64_t end = std::min(rows * lines, (step + 1) * each);
  int64_t row = step * each / lines;
  int64_t line = step * each % lines;
  for (int64_t n = step * each; n < end; ++n) {
    hwy::Prefetch(block + row * stride + line * kLine);
    if (++line == lines) {
      line = 0;
      ++row;
    }
  }
}

// What a block of a product is made of: rows of a from its first depth on, packed panels of b, and where it goes.
template <class A, class C>
struct Block {
  int64_t rows = 0;
  int64_t width = 0;
  int64_t depth = 0;
  const A* a = nullptr;
  int64_t a_stride = 0;
  const float* b = nullptr;
  C* c = nullptr;
  int64_t c_stride = 0;
  bool accumulate = false;
  float* panels = nullptr;  // room for kGemmPanels columns of a
};

// A row panel of a meets all panels of b in turn, so that it is read once and c is written row by row.
template <class Kind, class A, class C>
HWY_ATTR void multiply_rows(const Block<A, C>& block) {
  const int64_t units = units_of<Kind>(block.depth);
  const int64_t steps = (block.width + kCols - 1) / kCols;
  const int64_t stride = block.a_stride * int64_t{sizeof(A)};
  // Units lie in a where they are of its type and all are whole.
  const bool in_place = std::is_same_v<A, typename Kind::Element> && block.depth % Kind::kPerUnit == 0;
  for (int64_t i = 0, rows = 0; i < block.rows; i += rows) {
    rows = panel_height(block.rows - i);
    const A* a = block.a + i * block.a_stride;
    const int64_t next_rows = panel_height(block.rows - i - rows);
    if (!in_place) pack_transposed<Kind>(a, block.a_stride, block.depth, rows, kRows, block.panels);
    for (int64_t step = 0; step < steps; ++step) {
      prefetch_part(bytes_of(a + rows * block.a_stride), stride, next_rows, block.depth * int64_t{sizeof(A)}, step,
                    steps);
      const float* b = block.b + step * kCols * units;
      const int64_t cols = std::min(kCols, block.width - step * kCols);
      C* to = block.c + i * block.c_stride + step * kCols;
      if (in_place) {
        tile<Kind, Along::rows>(units, bytes_of(a), stride, b, to, block.c_stride, block.accumulate, rows, cols);
      } else {
        tile<Kind, Along::depth>(units, bytes_of(block.panels), kRows * int64_t{sizeof(float)}, b, to, block.c_stride,
                                 block.accumulate, rows, cols);
      }
    }
  }
}

// The same where the rows of the product are columns of a.
template <class Kind, class A, class C>
HWY_ATTR void multiply_columns(const Block<A, C>& block) {
  constexpr int64_t kGroup = kPanelsAtOnce * kRows;
  const int64_t units = units_of<Kind>(block.depth);
  const int64_t steps = (block.width + kCols - 1) / kCols;
  const int64_t stride = block.a_stride * int64_t{sizeof(A)};
  for (int64_t i = 0; i < block.rows; i += kGroup) {
    const A* a = block.a + i;
    const int64_t group = std::min(block.rows - i, kGroup);
    const int64_t next_group = std::min(block.rows - i - group, kGroup);
    pack_row_panels<Kind>(a, block.a_stride, block.depth, group, block.panels);
    const float* panel = block.panels;
    for (int64_t r = 0, rows = 0; r < group; r += rows, panel += kRows * units) {
      rows = panel_height(group - r);
      for (int64_t step = 0; step < steps; ++step) {
        if (next_group > 0) {
          prefetch_part(bytes_of(a + kGroup), stride, block.depth, next_group * int64_t{sizeof(A)},
                        r / kRows * steps + step, kPanelsAtOnce * steps);
        }
        tile<Kind, Along::depth>(units, bytes_of(panel), kRows * int64_t{sizeof(float)}, block.b + step * kCols * units,
                                 block.c + (i + r) * block.c_stride + step * kCols, block.c_stride, block.accumulate,
                                 rows, std::min(kCols, block.width - step * kCols));
      }
    }
  }
}

// c = or += sums, rounded
template <class C>
HWY_ATTR void write_sums(const float* sums, int64_t stride, int64_t rows, int64_t cols, C* c, int64_t c_stride,
                         bool accumulate) {
  for (int64_t i = 0; i < rows; ++i, sums += stride, c += c_stride) {
    for (int64_t j = 0; j < cols; j += kLanes) {
      Vec sum = hn::LoadU(Floats(), sums + j);
      if (accumulate) sum = hn::Add(load(c + j, cols - j), sum);
      store(sum, c + j, cols - j);
    }
  }
}

template <class Kind, class A, class B, class C>
HWY_ATTR void gemm(const GemmTile& t, float* workspace) {
  constexpr int64_t kDepth = kGemmDepth * Kind::kPerUnit;
  auto* const c = static_cast<C*>(t.c.data);
  if (t.k == 0 && !t.c.accumulate) {
    for (int64_t i = 0; i < t.m; ++i) std::fill_n(c + i * t.c.stride, t.n, C());
  }
  float* const panels = workspace;
  float* const b_panels = panels + kGemmPanels * units_of<Kind>(std::min(t.k, kDepth));
  // Sums of several blocks are rounded at their end.
  const bool rounds_later = !std::is_same_v<C, float> && t.k > kDepth;
  const int64_t stride = gemm_packed_width(t.n);
  float* const sums = b_panels + stride * kGemmDepth;
  const auto multiply_block = [&](auto block) {
    t.a.transposed ? multiply_columns<Kind>(block) : multiply_rows<Kind>(block);
  };
  for (int64_t j = 0; j < t.n; j += kGemmWidth) {
    const int64_t width = std::min(kGemmWidth, t.n - j);
    for (int64_t k = 0; k < t.k; k += kDepth) {
      const int64_t depth = std::min(kDepth, t.k - k);
      const auto* const a = static_cast<const A*>(t.a.at(0, k).data);
      pack_panels<Kind>(static_cast<const B*>(t.b.at(k, j).data), t.b.stride, t.b.transposed, depth, width, b_panels);
      if (rounds_later) {
        multiply_block(Block<A, float>{t.m, width, depth, a, t.a.stride, b_panels, sums, stride, k > 0, panels});
      } else {
        multiply_block(Block<A, C>{t.m, width, depth, a, t.a.stride, b_panels, c + j, t.c.stride,
                                   t.c.accumulate || k > 0, panels});
      }
    }
    if (rounds_later) write_sums(sums, stride, t.m, width, c + j, t.c.stride, t.c.accumulate);
  }
}

template <class Kind, class A, class B>
HWY_ATTR void gemm_into(const GemmTile& t, float* workspace) {
  t.c.dtype == DType::bf16 ? gemm<Kind, A, B, bf16>(t, workspace) : gemm<Kind, A, B, float>(t, workspace);
}

HWY_ATTR void gemm_tile_simd(const GemmTile& t, float* workspace) {
  const bool a_is_bf16 = t.a.dtype == DType::bf16;
  if (a_is_bf16 && t.b.dtype == DType::bf16) {
    const WithoutDenormals guard;
    t.bf16_dot ? gemm_into<DotPairs, bf16, bf16>(t, workspace) : gemm_into<Pairs<false>, bf16, bf16>(t, workspace);
  } else if (a_is_bf16) {
    gemm_into<Singles, bf16, float>(t, workspace);
  } else if (t.b.dtype == DType::bf16) {
    gemm_into<Singles, float, bf16>(t, workspace);
  } else {
    gemm_into<Singles, float, float>(t, workspace);
  }
}

// Sums that are begun side by side, whatever the width of vectors.
constexpr int64_t kChains = 16;
static_assert(kChains % kLanes == 0);

// c[o] = or += <a, row o of b>
template <int64_t kOutputs, class A, class B, class C>
HWY_INLINE HWY_ATTR void dot_rows(const GemmTile& t, const A* a, const B* b, C* c) {
  constexpr int64_t kVectors = kChains / kLanes;
  const Floats d;
  Vec sum[kOutputs][kVectors];
  for (auto& row : sum) {
    for (Vec& v : row) v = hn::Zero(d);
  }
  int64_t k = 0;
  for (; k + kChains <= t.k; k += kChains) {
    for (int64_t v = 0; v < kVectors; ++v) {
      const Vec x = load(a + k + v * kLanes, kLanes);
      for (int64_t o = 0; o < kOutputs; ++o) {
        sum[o][v] = hn::MulAdd(x, load(b + o * t.b.stride + k + v * kLanes, kLanes), sum[o][v]);
      }
    }
  }
  for (int64_t o = 0; o < kOutputs; ++o) {
    float chains[kChains];
    for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(sum[o][v], d, chains + v * kLanes);
    for (int64_t i = k; i < t.k; ++i) {
      chains[i - k] += static_cast<float>(a[i]) * static_cast<float>(b[o * t.b.stride + i]);
    }
    for (int64_t half = kChains / 2; half > 0; half /= 2) {
      for (int64_t i = 0; i < half; ++i) chains[i] += chains[i + half];
    }
    c[o] = static_cast<C>(t.c.accumulate ? static_cast<float>(c[o]) + chains[0] : chains[0]);
  }
}

template <class A, class B, class C>
HWY_ATTR void one_row(const GemmTile& t) {
  constexpr int64_t kAtOnce = 4;
  const auto* const a = static_cast<const A*>(t.a.data);
  const auto* const b = static_cast<const B*>(t.b.data);
  auto* const c = static_cast<C*>(t.c.data);
  int64_t j = 0;
  for (; j + kAtOnce <= t.n; j += kAtOnce) dot_rows<kAtOnce>(t, a, b + j * t.b.stride, c + j);
  for (; j < t.n; ++j) dot_rows<1>(t, a, b + j * t.b.stride, c + j);
}

template <class A, class B>
HWY_ATTR void one_row_into(const GemmTile& t) {
  t.c.dtype == DType::bf16 ? one_row<A, B, bf16>(t) : one_row<A, B, float>(t);
}

HWY_ATTR void gemm_one_row_simd(const GemmTile& t) {
  const bool b_is_bf16 = t.b.dtype == DType::bf16;
  if (t.a.dtype == DType::bf16) {
    b_is_bf16 ? one_row_into<bf16, bf16>(t) : one_row_into<bf16, float>(t);
  } else {
    b_is_bf16 ? one_row_into<float, bf16>(t) : one_row_into<float, float>(t);
  }
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(gemm_tile_simd);
HWY_EXPORT(gemm_one_row_simd);

Factor Factor::at(int64_t row, int64_t col) const {
  const int64_t elements = transposed ? col * stride + row : row * stride + col;
  Factor moved = *this;
  moved.data = static_cast<const char*>(data) + elements * static_cast<int64_t>(size_of(dtype));
  return moved;
}

Product Product::at(int64_t row, int64_t col) const {
  Product moved = *this;
  moved.data = static_cast<char*>(data) + (row * stride + col) * static_cast<int64_t>(size_of(dtype));
  return moved;
}

GemmTile GemmTile::part(int64_t row, int64_t rows, int64_t col, int64_t cols) const {
  GemmTile part = *this;
  part.m = rows;
  part.n = cols;
  part.a = a.at(row, 0);
  part.b = b.at(0, col);
  part.c = c.at(row, col);
  return part;
}

void gemm_tile(const GemmTile& tile, float* workspace) {
  HWY_DYNAMIC_DISPATCH(gemm_tile_simd)(tile, workspace);
}

void gemm_one_row(const GemmTile& tile) {
  HWY_DYNAMIC_DISPATCH(gemm_one_row_simd)(tile);
}

}  // namespace sluice::cpu
#endif
