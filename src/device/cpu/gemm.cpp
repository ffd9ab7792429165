#include "device/cpu/cpu_backend.h"
#include "device/cpu/scratch.h"
#include "device/cpu/tiles.h"
#include "device/ref/loops.h"

namespace sluice {

using namespace cpu;

namespace {

Factor factor_of(const Tensor& t, bool transposed) {
  return {t.raw(), t.dtype(), t.stride(), transposed};
}

// Matrix number i of a stack.
Factor factor_of(const Tensor& t, int64_t i, bool transposed) {
  const auto bytes = static_cast<int64_t>(size_of(t.dtype()));
  return {static_cast<const char*>(t.raw()) + i * t.stride() * bytes, t.dtype(), t.dim(2), transposed};
}

// Finds the segment of experts' rows that the n-th tile of kTileRows rows belongs to. The walk is as long as there are
// experts, little beside the product of a tile.
struct Segment {
  int64_t expert = -1;
  int64_t begin = 0;
  int64_t rows = 0;
};
Segment find_segment(const int32_t* offsets, int64_t num_experts, int64_t n) {
  for (int64_t e = 0; e < num_experts; ++e) {
    const Cut cut(offsets[e + 1] - offsets[e], kTileRows);
    if (n < cut.parts) {
      const int64_t begin = offsets[e] + n * cut.part;
      return {e, begin, std::min<int64_t>(cut.part, offsets[e + 1] - begin)};
    }
    n -= cut.parts;
  }
  return {};
}

int64_t count_segments(const int32_t* offsets, int64_t num_experts) {
  int64_t count = 0;
  for (int64_t e = 0; e < num_experts; ++e) count += Cut(offsets[e + 1] - offsets[e], kTileRows).parts;
  return count;
}

}  // namespace

void cpu::run_gemm(Pool& pool, const GemmTile& whole, const Tensor& scratch, size_t bytes) {
  if (is_one_row(whole)) {
    constexpr int64_t kColumns = 64;
    pool.run_ranges(whole.n, kColumns,
                    [&](int64_t begin, int64_t end, int) { gemm_one_row(whole.part(0, 1, begin, end - begin)); });
    return;
  }
  // Small results (weight gradients) are cut finer, so that every thread has work. The cut may follow the number of
  // threads, because no result depends on it.
  int64_t most_rows = kTileRows;
  int64_t most_cols = kGemmWidth;
  constexpr int64_t kLeast = 64;
  const auto tiles = [&] { return Cut(whole.m, most_rows).parts * Cut(whole.n, most_cols).parts; };
  while (tiles() < pool.threads() && (most_rows > kLeast || most_cols > kLeast)) {
    const bool rows_are_longer = std::min(whole.m, most_rows) >= std::min(whole.n, most_cols);
    (most_cols <= kLeast || (most_rows > kLeast && rows_are_longer) ? most_rows : most_cols) /= 2;
  }
  const Cut rows(whole.m, most_rows);
  const Cut cols(whole.n, most_cols);
  pool.run(rows.parts * cols.parts, [&](int64_t chunk, int worker) {
    const int64_t row = chunk % rows.parts * rows.part;
    const int64_t col = chunk / rows.parts * cols.part;
    gemm_tile(whole.part(row, std::min(rows.part, whole.m - row), col, std::min(cols.part, whole.n - col)),
              workspace(scratch, bytes, worker));
  });
}

KernelSet CpuBackend::execute(const Gemm& op, const Tensor& scratch) {
  if (op.c.dtype() == DType::f64) return RefBackend::execute(op, scratch);
  const GemmTile whole{.m = op.m(),
                       .n = op.n(),
                       .k = op.k(),
                       .a = factor_of(op.a, op.trans_a),
                       .b = factor_of(op.b, op.trans_b),
                       .c = {op.c.raw(), op.c.dtype(), op.c.stride(), op.accumulate},
                       .bf16_dot = bf16_dot_};
  run_gemm(pool_, whole, scratch, gemm_workspace(op));
  return Kernel::simd;
}

KernelSet CpuBackend::execute(const GroupedGemm& op, const Tensor& scratch) {
  if (op.y.dtype() == DType::f64) return RefBackend::execute(op, scratch);
  ref::check_offsets(op.offsets, op.x.dim(0));
  const auto* offsets = op.offsets.data<int32_t>();
  const int64_t num_experts = op.w.dim(0);
  const Cut cols(op.n(), kGemmWidth);
  const size_t bytes = gemm_workspace(op);
  // Of few rows in all most experts have one, if any; else the bits of one's result would hang on how many came along.
  constexpr int64_t kMostlyOneEach = 32;
  const bool mostly_one_each = op.x.dim(0) <= kMostlyOneEach;
  const Product y{op.y.raw(), op.y.dtype(), op.y.stride()};
  const int64_t chunks = count_segments(offsets, num_experts) * cols.parts;
  const auto tile_at = [&](int64_t chunk) {
    const Segment segment = find_segment(offsets, num_experts, chunk / cols.parts);
    const GemmTile whole{.m = segment.rows,
                         .n = op.n(),
                         .k = op.k(),
                         .a = factor_of(op.x, false).at(segment.begin, 0),
                         .b = factor_of(op.w, segment.expert, op.trans_w),
                         .c = y.at(segment.begin, 0),
                         .bf16_dot = bf16_dot_};
    const int64_t col = chunk % cols.parts * cols.part;
    return whole.part(0, segment.rows, col, std::min(cols.part, op.n() - col));
  };
  pool_.run(chunks, [&](int64_t chunk, int worker) {
    const GemmTile tile = tile_at(chunk);
    if (mostly_one_each && is_one_row(tile)) {
      gemm_one_row(tile);
    } else if (has_few_rows(tile)) {
      // Most likely the worker's next.
      const int64_t next = chunk + pool_.threads();
      gemm_few_rows(tile, next < chunks ? tile_at(next).b : Factor(), workspace(scratch, bytes, worker));
    } else {
      gemm_tile(tile, workspace(scratch, bytes, worker));
    }
  });
  return Kernel::simd;
}

KernelSet CpuBackend::execute(const GroupedGemmWeight& op, const Tensor& scratch) {
  if (op.dw.dtype() == DType::f64) return RefBackend::execute(op, scratch);
  ref::check_offsets(op.offsets, op.dy.dim(0));
  const auto* offsets = op.offsets.data<int32_t>();
  const int64_t m = op.dw.dim(1);
  const int64_t n = op.dw.dim(2);
  const Cut rows(m, kTileRows);
  const Cut cols(n, kGemmWidth);
  const int64_t tiles = rows.parts * cols.parts;
  const size_t bytes = gemm_workspace(op);
  const int64_t expert_bytes = op.dw.stride() * static_cast<int64_t>(size_of(op.dw.dtype()));
  pool_.run(op.dw.dim(0) * tiles, [&](int64_t chunk, int worker) {
    const int64_t e = chunk / tiles;
    const int64_t begin = offsets[e];
    if (offsets[e + 1] == begin) return;
    const GemmTile whole{.m = m,
                         .n = n,
                         .k = offsets[e + 1] - begin,
                         .a = factor_of(op.dy, true).at(0, begin),
                         .b = factor_of(op.x, false).at(begin, 0),
                         .c = {static_cast<char*>(op.dw.raw()) + e * expert_bytes, op.dw.dtype(), n,
                               /*accumulate=*/true},
                         .bf16_dot = bf16_dot_};
    const int64_t row = chunk % rows.parts * rows.part;
    const int64_t col = chunk % tiles / rows.parts * cols.part;
    gemm_tile(whole.part(row, std::min(rows.part, m - row), col, std::min(cols.part, n - col)),
              workspace(scratch, bytes, worker));
  });
  return Kernel::simd;
}

}  // namespace sluice
