#include "device/cpu/scratch.h"

#include <algorithm>

namespace sluice::cpu {

namespace {

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Packed elements in units of 32 bits. What is packed is padded to an even number of them.
int64_t units_of(DType dtype, int64_t elements) {
  return dtype == DType::bf16 ? elements / 2 : elements;
}

// Of any instruction set: rows of a register tile, and floats of a row of scores.
constexpr int64_t kMostRows = 16;
constexpr int64_t kScoreRow = kAttentionKeys + kAttentionPad;

int64_t padded(int64_t n) {
  return round_up(n, kAttentionPad);
}

// Of a workspace of so many floats, with room to align its pieces.
size_t bytes_of(int64_t floats) {
  constexpr int64_t kMostPieces = 16;
  return static_cast<size_t>(round_up(floats + kMostPieces * kAttentionPad, 64)) * sizeof(float);
}

}  // namespace

int64_t gemm_packed_width(int64_t n) {
  constexpr int64_t kWidest = 64;
  return round_up(std::min(n, kGemmWidth), kWidest);
}

size_t gemm_workspace(const ProductSizes& product) {
  const auto& [c, a, b, m, n, k] = product;
  if (c == DType::f64) return 0;  // plain loops
  const int64_t width = gemm_packed_width(n);
  const int64_t units = a == DType::bf16 && b == DType::bf16 ? (k + 1) / 2 : k;
  // Sums that are rounded at the end of several blocks.
  const int64_t sums = c == DType::bf16 && units > kGemmDepth ? std::min(m, kTileRows) * width : 0;
  const int64_t floats = (width + kGemmPanels) * std::min(units, kGemmDepth) + sums;
  return static_cast<size_t>(round_up(floats * static_cast<int64_t>(sizeof(float)), 256));
}

size_t gemm_workspace(const Gemm& op) {
  return gemm_workspace({op.c.dtype(), op.a.dtype(), op.b.dtype(), op.m(), op.n(), op.k()});
}

size_t gemm_workspace(const GroupedGemm& op) {
  const size_t many = gemm_workspace({op.y.dtype(), op.x.dtype(), op.w.dtype(), op.x.dim(0), op.n(), op.k()});
  if (many == 0) return 0;
  // Of few rows: all of them packed, or their sums within and over blocks of the depth.
  const int64_t rows = round_up(std::min(op.x.dim(0), kFewRows), 32);
  const int64_t floats = rows * std::max(units_of(op.x.dtype(), op.k() + 1), 2 * gemm_packed_width(op.n()));
  return std::max(many, static_cast<size_t>(round_up(floats * static_cast<int64_t>(sizeof(float)), 256)));
}

size_t gemm_workspace(const GroupedGemmWeight& op) {
  return gemm_workspace({op.dw.dtype(), op.dy.dtype(), op.x.dtype(), op.dw.dim(1), op.dw.dim(2), op.dy.dim(0)});
}

size_t attention_workspace(const AttentionForward& op) {
  if (op.q.dtype() == DType::f64) return 0;
  const int64_t keys = padded(op.spec.keys());
  const int64_t row = padded(op.q.dim(2)) + padded(op.v.dim(2));
  return bytes_of(units_of(op.q.dtype(), keys * row) + kMostRows * (row + kScoreRow));
}

size_t attention_workspace(const AttentionBackward& op) {
  const DType dtype = op.q.dtype();
  if (dtype == DType::f64) return 0;
  const int64_t keys = padded(op.spec.seq_len);
  const int64_t dim = padded(op.q.dim(2));
  const int64_t v_dim = padded(op.v.dim(2));
  // Packed keys twice and values; dk, dv. Then of a block: q and d_o, dq, scores twice, a statistic; of a row panel: a
  // factor and scores.
  return bytes_of(units_of(dtype, keys * (2 * dim + v_dim)) + keys * (dim + v_dim) +
                  units_of(dtype, kAttentionQueries * (dim + v_dim)) + kAttentionQueries * (dim + 2 * kScoreRow + 1) +
                  kMostRows * (std::max(dim, v_dim) + kScoreRow));
}

int64_t head_chunk_rows(const HeadLoss& op) {
  // Small enough for a cache, long enough that the weights are not read too often.
  constexpr int64_t kBytes = int64_t{32} << 20, kLeast = 128, kMost = 1024;
  const int64_t row_bytes = op.w.dim(0) * static_cast<int64_t>(size_of(accumulator_of(op.x.dtype())));
  const int64_t rows = std::clamp(kBytes / std::max<int64_t>(row_bytes, 1), kLeast, kMost);
  return std::min(rows, std::max<int64_t>(op.x.dim(0), 1));
}

int64_t head_logits_stride(const HeadLoss& op) {
  return round_up(op.w.dim(0), 32) + 16;  // no power of two: columns are read too
}

size_t head_workspace(const HeadLoss& op) {
  const DType type = op.x.dtype(), sums = accumulator_of(type);
  const int64_t vocab = op.w.dim(0), dim = op.x.dim(1), rows = head_chunk_rows(op);
  const size_t logits = gemm_workspace({sums, type, op.w.dtype(), rows, vocab, dim});
  if (!op.dw) return logits;
  return std::max({logits, gemm_workspace({type, type, op.w.dtype(), rows, dim, vocab}),
                   gemm_workspace({sums, type, type, vocab, dim, rows})});
}

size_t scratch_bytes(const Gemm& op, int workers) {
  return static_cast<size_t>(workers) * gemm_workspace(op);
}

size_t scratch_bytes(const GroupedGemm& op, int workers) {
  return static_cast<size_t>(workers) * gemm_workspace(op);
}

size_t scratch_bytes(const GroupedGemmWeight& op, int workers) {
  return static_cast<size_t>(workers) * gemm_workspace(op);
}

size_t scratch_bytes(const AttentionForward& op, int workers) {
  return static_cast<size_t>(workers) * attention_workspace(op);
}

size_t scratch_bytes(const AttentionBackward& op, int workers) {
  return static_cast<size_t>(workers) * attention_workspace(op);
}

size_t scratch_bytes(const RmsNormBackward& op, int /*workers*/) {
  const int64_t parts = (op.rows() + kNormRowsPerPart - 1) / kNormRowsPerPart;
  return static_cast<size_t>(parts * op.gamma.dim(0)) * size_of(accumulator_of(op.x.dtype()));
}

size_t scratch_bytes(const HeadLoss& op, int workers) {
  const auto logits = static_cast<size_t>(head_chunk_rows(op) * head_logits_stride(op));
  return logits * size_of(accumulator_of(op.x.dtype())) + static_cast<size_t>(workers) * head_workspace(op);
}

}  // namespace sluice::cpu
