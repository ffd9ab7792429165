// Working memory on a CPU, of the reference loops and the fast path alike, and the blocks it follows from. Pure
// functions of an operation's sizes.
#pragma once

#include "ops/attention.h"
#include "ops/gemm.h"
#include "ops/head_loss.h"
#include "ops/rmsnorm.h"

namespace sluice::cpu {

// Blocks of the fast product: sums over the depth are cut at multiples of kGemmDepth whatever the machine. A worker
// packs one block of b, kGemmDepth x kGemmWidth, and kGemmPanels columns of a.
inline constexpr int64_t kGemmDepth = 256;
inline constexpr int64_t kGemmWidth = 512;
inline constexpr int64_t kGemmPanels = 128;
// Bytes a worker needs for a product of n columns and depth k; a multiple of 256.
size_t gemm_workspace(int64_t n, int64_t k);

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
