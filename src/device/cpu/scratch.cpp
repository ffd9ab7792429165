#include "device/cpu/scratch.h"

#include <algorithm>

namespace sluice::cpu {

namespace {

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Only f32 has a fast path that packs.
size_t product_workspaces(DType c, DType a, DType b, int64_t n, int64_t k, int workers) {
  const bool fast = c == DType::f32 && a == DType::f32 && b == DType::f32;
  return fast ? static_cast<size_t>(workers) * gemm_workspace(n, k) : 0;
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

size_t gemm_workspace(int64_t n, int64_t k) {
  // 64: the widest panel of b of any instruction set.
  const int64_t columns = round_up(std::min(n, kGemmWidth), 64) + kGemmPanels;
  return static_cast<size_t>(round_up(columns * std::min(k, kGemmDepth) * 4, 256));
}

size_t attention_workspace(const AttentionForward& op) {
  if (op.q.dtype() != DType::f32) return 0;
  const int64_t keys = padded(op.spec.keys());
  const int64_t row = padded(op.q.dim(2)) + padded(op.v.dim(2));
  return bytes_of(keys * row + kMostRows * (row + kScoreRow));
}

size_t attention_workspace(const AttentionBackward& op) {
  if (op.q.dtype() != DType::f32) return 0;
  const int64_t keys = padded(op.spec.seq_len);
  const int64_t dim = padded(op.q.dim(2));
  const int64_t v_dim = padded(op.v.dim(2));
  // Packed keys twice and values; dk, dv. Then of a block: q, dq, d_o, scores twice, a panel and a statistic.
  return bytes_of(keys * (3 * dim + 2 * v_dim) + kAttentionQueries * (2 * dim + v_dim + 2 * kScoreRow + 1) +
                  kMostRows * std::max(dim, v_dim));
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
  if (op.x.dtype() != DType::f32) return 0;
  const int64_t vocab = op.w.dim(0), dim = op.x.dim(1);
  return std::max(gemm_workspace(vocab, dim), gemm_workspace(dim, std::max(vocab, head_chunk_rows(op))));
}

size_t scratch_bytes(const Gemm& op, int workers) {
  return product_workspaces(op.c.dtype(), op.a.dtype(), op.b.dtype(), op.n(), op.k(), workers);
}

size_t scratch_bytes(const GroupedGemm& op, int workers) {
  return product_workspaces(op.y.dtype(), op.x.dtype(), op.w.dtype(), op.n(), op.k(), workers);
}

size_t scratch_bytes(const GroupedGemmWeight& op, int workers) {
  return product_workspaces(op.dw.dtype(), op.dy.dtype(), op.x.dtype(), op.dw.dim(2), op.dy.dim(0), workers);
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
