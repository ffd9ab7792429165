// What a block is made of. A model family fills these in; the modules read nothing else.
#pragma once

#include <cstdint>
#include <optional>

#include "nn/attention.h"
#include "ops/balance.h"
#include "ops/router.h"
#include "ops/sigmoid_router.h"
#include "ops/swiglu.h"

namespace sluice {

enum class RouterKind : uint8_t {
  softmax_topk,  // learned: weights are the softmax over all experts' logits or over those of the chosen
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
  GateSpec gate;                                  // of a forced router
  SigmoidRouterSpec sigmoid;                      // of a sigmoid router
  bool router_bias = false;                       // added to the logits
  bool renormalize = true;                        // a softmax router's weights sum to 1
  double aux_loss_coef = 0;                       // weight of the balance loss
  std::optional<BalanceOver> aux_loss_over = {};  // see balance_over()
  double router_z_coef = 0;                       // weight of the z-loss of the router's logits
  bool expert_bias = false;                       // of both products
  SwigluForm gate_form;
  // N > 1: what one of N expert-parallel ranks computes, alone. Only E / N experts exist, and expert e runs as e mod
  // (E / N); a token may meet one in several slots.
  int64_t local_shard = 1;

  int64_t stored_experts() const { return num_experts / local_shard; }
  // What the balance loss is of; unless given, a softmax router's micro-batches and a sigmoid router's sequences.
  BalanceOver balance_over() const {
    return aux_loss_over.value_or(router == RouterKind::sigmoid_topk ? BalanceOver::sequence
                                                                     : BalanceOver::micro_batch);
  }
};

struct BlockConfig {
  AttentionConfig attention;
  MoeConfig moe;
  int64_t mlp_ffn = 0;  // width of the MLP every token visits: instead of experts, or beside them; 0: none
  double norm_eps = 1e-6;
  double init_std = 0.02;

  AttentionSizes sizes() const { return sizes_of(attention); }
  int64_t hidden() const { return sizes().hidden; }
  // The pieces of `policy` that such a block has.
  RecomputePolicy pieces_of(const RecomputePolicy& policy) const { return Attention::pieces_of(attention, policy); }
};

}  // namespace sluice
