// What a block is made of. A model family fills these in; the modules read nothing else.
#pragma once

#include <cstdint>
#include <optional>

#include "ops/router.h"
#include "ops/sigmoid_router.h"
#include "ops/swiglu.h"

namespace sluice {

// Grouped-query attention with rotary positions (half-split) and, where a family has them, RMSNorm on each head of q
// and k, biases of all projections, and learned sinks.
struct AttentionConfig {
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t seq_len = 0;
  int64_t window = 0;  // 0: all earlier keys
  bool qk_norm = false;
  bool bias = false;   // of q, k, v and the output projection
  bool sinks = false;  // a logit per head that joins the softmax's denominator
};

// Multi-head latent attention: dn + dr columns of a query or key, of which the last dr carry positions (neighbouring
// pairs), dv of a value.
struct MlaConfig {
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t q_lora = 0;  // width of the query latent; 0: queries come from the hidden state
  int64_t kv_lora = 0;
  int64_t nope_dim = 0;
  int64_t rope_dim = 0;
  int64_t v_dim = 0;
  int64_t seq_len = 0;
  double scale_factor = 1;  // over 1 / sqrt(dn + dr): YaRN's m^2

  int64_t qk_dim() const { return nope_dim + rope_dim; }
};

enum class RouterKind : uint8_t {
  softmax_topk,  // learned: weights are the softmax over the chosen experts' logits
  sigmoid_topk,  // learned: weights are sigmoids; a selection bias keeps the experts balanced
  forced,        // GateSpec, no parameters
};

struct MoeConfig {
  int64_t hidden = 0;
  int64_t ffn = 0;          // width of one expert
  int64_t num_experts = 0;  // 0: a block without routed experts
  int64_t top_k = 0;
  int64_t seq_len = 0;
  RouterKind router = RouterKind::softmax_topk;
  GateSpec gate;              // of a forced router
  SigmoidRouterSpec sigmoid;  // of a sigmoid router
  bool router_bias = false;   // added to the logits
  double aux_loss_coef = 0;   // weight of the balance loss: of a softmax router's micro-batches, a sigmoid's sequences
  bool expert_bias = false;   // of both products
  SwigluForm gate_form;
  // N > 1: what one of N expert-parallel ranks computes, alone. Only E / N experts exist, and expert e runs as e mod
  // (E / N); a token may meet one in several slots.
  int64_t local_shard = 1;

  int64_t stored_experts() const { return num_experts / local_shard; }
};

struct BlockConfig {
  AttentionConfig attention;  // unless there is
  std::optional<MlaConfig> mla;
  MoeConfig moe;
  int64_t mlp_ffn = 0;  // width of the MLP every token visits: instead of experts, or beside them; 0: none
  double norm_eps = 1e-6;
  double init_std = 0.02;

  int64_t hidden() const { return mla ? mla->hidden : attention.hidden; }
  // Columns of a head that carry positions.
  int64_t rope_dim() const { return mla ? mla->rope_dim : attention.head_dim; }
  // Key/value heads, and columns of a key and of a value.
  int64_t kv_heads() const { return mla ? mla->heads : attention.kv_heads; }
  int64_t key_dim() const { return mla ? mla->qk_dim() : attention.head_dim; }
  int64_t value_dim() const { return mla ? mla->v_dim : attention.head_dim; }
};

// What is not kept from forward to backward but rebuilt.
struct RecomputePolicy {
  bool norm = false;      // the normed inputs of attention and experts
  bool mla_up = false;    // queries, keys and values of latent attention
  bool qk_rope = false;   // q and k after norm and rotation
  bool act = false;       // the experts' activation
  bool experts = false;   // the experts' first product (and the activation)
  bool dispatch = false;  // the experts' input
  bool full = false;      // everything, from the block's input and the routing record

  static RecomputePolicy selective() { return {.norm = true, .mla_up = true, .qk_rope = true, .act = true}; }
  // The pieces that a block of this kind has.
  RecomputePolicy applied_to(bool mla) const {
    RecomputePolicy policy = *this;
    (mla ? policy.qk_rope : policy.mla_up) = false;
    return policy;
  }
  bool operator==(const RecomputePolicy&) const = default;
  bool any() const { return norm || mla_up || qk_rope || act || experts || dispatch || full; }
};

// The pieces by name, the cheapest to make again first.
struct RecomputePiece {
  const char* name;
  bool RecomputePolicy::* on;
};
inline constexpr RecomputePiece kRecomputePieces[] = {
    {"norm", &RecomputePolicy::norm}, {"mla_up", &RecomputePolicy::mla_up},   {"qk_rope", &RecomputePolicy::qk_rope},
    {"act", &RecomputePolicy::act},   {"experts", &RecomputePolicy::experts}, {"dispatch", &RecomputePolicy::dispatch}};

}  // namespace sluice
