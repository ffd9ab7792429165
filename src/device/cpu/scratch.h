// Working memory on a CPU, of the reference loops and the fast path alike, and the blocks it follows from. Pure
// functions of an operation's sizes.
#pragma once

#include "ops/attention.h"
#include "ops/gemm.h"
#include "ops/head_loss.h"
#include "ops/rmsnorm.h"

namespace sluice::cpu {

// Blocks of the fast product: sums over the depth are cut at multiples of kGemmDepth whatever the machine, counted in
// floats or pairs of bf16. A worker packs one block of b, kGemmDepth x kGemmWidth, and kGemmPanels columns of a; it has
// at most kTileRows rows at a time: enough to pay for packing b, few enough to share the work.
inline constexpr int64_t kGemmDepth = 256;
inline constexpr int64_t kGemmWidth = 512;
inline constexpr int64_t kGemmPanels = 128;
inline constexpr int64_t kTileRows = 512;
// Up to so many rows of an expert can be multiplied without packing its weights (gemm_few_rows).
inline constexpr int64_t kFewRows = 64;
// Columns of a block of a product of n, padded to whole panels of any instruction set.
int64_t gemm_packed_width(int64_t n);
// Bytes a worker needs for a product c [m, n] = a b of depth k; a multiple of 256.
struct ProductSizes {
  DType c = DType::f32;
  DType a = DType::f32;
  DType b = DType::f32;
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
};
size_t gemm_workspace(const ProductSizes& product);
size_t gemm_workspace(const Gemm& op);
size_t gemm_workspace(const GroupedGemm& op);
size_t gemm_workspace(const GroupedGemmWeight& op);

// Blocks of attention: so many queries and keys at a time; columns are padded to at most kAttentionPad.
inline constexpr int64_t kAttentionQueries = 112;
inline constexpr int64_t kAttentionKeys = 256;
inline constexpr int64_t kAttentionPad = 32;
// Bytes a worker needs: packed keys and values of one key/value head, linear in the keys of a sequence.
size_t attention_workspace(const AttentionForward& op);
size_t attention_workspace(const AttentionBackward& op);

// Rows whose part of dgamma is summed on its own before the parts are added in order.
inline constexpr int64_t kNormRowsPerPart = 256;

// Scratch of the head begins with so many rows of logits of the accumulator type, head_logits_stride() apart; a
// workspace of so many bytes for each worker follows.
int64_t head_chunk_rows(const HeadLoss& op);
int64_t head_logits_stride(const HeadLoss& op);
size_t head_workspace(const HeadLoss& op);

// Bytes where so many workers run chunks of one operation at the same time.
size_t scratch_bytes(const Gemm& op, int workers);
size_t scratch_bytes(const GroupedGemm& op, int workers);
size_t scratch_bytes(const GroupedGemmWeight& op, int workers);
size_t scratch_bytes(const AttentionForward& op, int workers);
size_t scratch_bytes(const AttentionBackward& op, int workers);
size_t scratch_bytes(const RmsNormBackward& op, int workers);
size_t scratch_bytes(const HeadLoss& op, int workers);

}  // namespace sluice::cpu
