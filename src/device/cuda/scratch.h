// Working memory of the kernels on a GPU, and the launch geometry it follows from. Pure functions of an operation's
// sizes, for builds without CUDA too: a plan for a GPU is made without one. Namespace cuda is compiled under another
// name by the emulation; these are the same in every build.
#pragma once

#include <algorithm>

#include "ops/attention.h"
#include "ops/dispatch.h"
#include "ops/gemm.h"
#include "ops/head_loss.h"
#include "ops/rmsnorm.h"

namespace sluice::gpu {

inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// What grouped kernels read: sizes, pointers and strides of each expert, and a tensor map of each matrix for every SM.
// Only products of bf16 have such kernels.
inline constexpr int64_t kGroupedBytesPerExpert = 64;
inline constexpr int64_t kGroupedTensorMapBytes = 128 * 1024;
inline size_t grouped_workspace(int64_t num_experts) {
  return static_cast<size_t>(round_up(num_experts * kGroupedBytesPerExpert, 256) + kGroupedTensorMapBytes);
}

// cuDNN's plans begin their scratch with the statistics of bf16 runs head by head, in a multiple of so many bytes.
inline size_t attention_stats_bytes(const Tensor& lse) {
  constexpr size_t kAlign = 256;
  return (lse.bytes() + kAlign - 1) / kAlign * kAlign;
}
// And take little more.
inline constexpr size_t kMostPlanBytes = 4096;  // 9.19 takes 256

// Parts of dgamma that are summed on their own before they are added in order: one for each block of a grid that fills
// the GPU, none without rows.
inline int64_t norm_parts(const RmsNormBackward& op) {
  constexpr int64_t kMostBlocks = 512;
  const int64_t rows = op.rows(), rows_of_a_part = (rows + kMostBlocks - 1) / kMostBlocks;
  return rows == 0 ? 0 : (rows + rows_of_a_part - 1) / rows_of_a_part;
}

// The plans of moving rows are counting sorts, which count the keys of so many runs of tokens apart.
inline int64_t sort_runs(int64_t num_tokens, int64_t top_k) {
  constexpr int64_t kMost = 512, kLeastPairs = 32;
  return std::clamp<int64_t>(num_tokens * top_k / kLeastPairs, 1, std::min(kMost, std::max<int64_t>(num_tokens, 1)));
}
// A count for each key and run, and one of all runs.
inline size_t sort_bytes(const Tensor& experts, int64_t num_keys) {
  return static_cast<size_t>(num_keys * (sort_runs(experts.dim(0), experts.dim(1)) + 1)) * sizeof(int32_t);
}

// Logits of the head are of the storage type, which the matrix units want; rows are whole pieces of 16 bytes.
inline int64_t head_logits_stride(const HeadLoss& op) {
  return round_up(op.w.dim(0), 16 / static_cast<int64_t>(size_of(op.x.dtype())));
}
// Rows at a time. Every chunk reads and writes all of dw, so chunks are long, whole tiles of a product, and about
// equal.
inline int64_t head_chunk_rows(const HeadLoss& op) {
  constexpr int64_t kBytes = int64_t{640} << 20, kTile = 128, kMost = 4096;
  const int64_t num_tokens = std::max<int64_t>(op.x.dim(0), 1);
  const int64_t row_bytes = head_logits_stride(op) * static_cast<int64_t>(size_of(op.x.dtype()));
  const int64_t most = std::clamp(kBytes / row_bytes / kTile * kTile, kTile, kMost);
  const int64_t num_chunks = (num_tokens + most - 1) / most;
  return std::min(round_up((num_tokens + num_chunks - 1) / num_chunks, kTile), num_tokens);
}

inline size_t scratch_bytes(const GroupedGemm& op) {
  return op.x.dtype() == DType::bf16 && op.w.dtype() == DType::bf16 ? grouped_workspace(op.w.dim(0)) : 0;
}
inline size_t scratch_bytes(const GroupedGemmWeight& op) {
  return op.dy.dtype() == DType::bf16 && op.x.dtype() == DType::bf16 ? grouped_workspace(op.dw.dim(0)) : 0;
}
inline size_t scratch_bytes(const AttentionForward& op) {
  return op.q.dtype() == DType::bf16 ? attention_stats_bytes(op.lse) + kMostPlanBytes : 0;
}
inline size_t scratch_bytes(const AttentionBackward& op) {
  const size_t delta = op.lse.bytes();  // <do, o> of each row and head
  if (op.q.dtype() != DType::bf16) return delta;
  // Plans sum dq up in f32, and make dk and dv for every query head.
  const size_t dq_sum = static_cast<size_t>(op.q.numel()) * sizeof(float);
  const int64_t per_head = op.q.dim(1) == op.k.dim(1) ? 0 : op.q.dim(2) + op.v.dim(2);
  const size_t dk_dv = static_cast<size_t>(op.q.dim(0) * op.q.dim(1) * per_head) * size_of(op.q.dtype());
  return attention_stats_bytes(op.lse) + kMostPlanBytes + delta + dq_sum + dk_dv;
}
inline size_t scratch_bytes(const RmsNormBackward& op) {
  return static_cast<size_t>(norm_parts(op) * op.gamma.dim(0)) * size_of(accumulator_of(op.x.dtype()));
}
inline size_t scratch_bytes(const DispatchPlan& op) {
  return sort_bytes(op.experts, 2 * op.counts.dim(0));  // tokens and pairs of each rank
}
inline size_t scratch_bytes(const ExpertSort& op) {
  return sort_bytes(op.experts, op.offsets.dim(0) - 1);
}
inline size_t scratch_bytes(const HeadLoss& op) {
  return static_cast<size_t>(head_chunk_rows(op) * head_logits_stride(op)) * size_of(op.x.dtype());
}

}  // namespace sluice::gpu
