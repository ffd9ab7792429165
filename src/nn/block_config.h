// What a block is made of. A model family fills these in; the modules read nothing else.
#pragma once

#include <cstdint>

#include "ops/router.h"

namespace sluice {

// Grouped-query attention with optional RMSNorm on each head of q and k, and rotary positions (half-split).
struct AttentionConfig {
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t seq_len = 0;
  int64_t window = 0;  // 0: all earlier keys
  bool qk_norm = false;
};

enum class RouterKind : uint8_t {
  softmax_topk,  // learned
  forced,        // GateSpec, no parameters
};

struct MoeConfig {
  int64_t hidden = 0;
  int64_t ffn = 0;          // width of one expert
  int64_t num_experts = 0;  // 0: a block without routed experts
  int64_t top_k = 0;
  int64_t seq_len = 0;
  RouterKind router = RouterKind::softmax_topk;
  GateSpec gate;  // of a forced router
};

struct BlockConfig {
  AttentionConfig attention;
  MoeConfig moe;
  int64_t mlp_ffn = 0;  // width of the MLP every token visits: instead of experts, or beside them; 0: none
  double norm_eps = 1e-6;
  double init_std = 0.02;
};

// What is not kept from forward to backward but rebuilt.
struct RecomputePolicy {
  bool norm = false;      // the normed inputs of attention and experts
  bool qk_rope = false;   // q and k after norm and rotation
  bool act = false;       // the experts' activation
  bool experts = false;   // the experts' first product (and the activation)
  bool dispatch = false;  // the experts' input
  bool full = false;      // everything, from the block's input and the routing record

  static RecomputePolicy selective() { return {true, true, true, false, false, false}; }
  bool any() const { return norm || qk_rope || act || experts || dispatch || full; }
};

}  // namespace sluice
