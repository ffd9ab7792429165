// A model small enough to run in milliseconds, on any layout.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "config/load.h"
#include "train/session.h"

namespace sluice::testing {

struct TinyLayout {
  std::string name;
  int ranks = 1;
  std::vector<std::string> overrides;
};

// 61 thousand parameters in 4 layers of 8 experts (top 2); 3 steps of 8 sequences of 16 tokens.
inline Config tiny_config(const std::vector<std::string>& overrides) {
  Config config = config::parse(R"(
seed: 7
step_scheduler: {global_batch_size: 8, local_batch_size: 1, max_steps: 3}
model:
  config:
    model_type: qwen3_moe
    vocab_size: 64
    hidden_size: 32
    num_hidden_layers: 4
    num_attention_heads: 4
    num_key_value_heads: 2
    head_dim: 8
    num_experts: 8
    num_experts_per_tok: 2
    moe_intermediate_size: 16
    rms_norm_eps: 1.0e-6
    rope_theta: 10000.0
    max_position_embeddings: 64
benchmark: {balance: published}
dataset: {_target_: mock, seq_len: 16}
clip_grad_norm: {max_norm: 1.0}
)",
                                "tiny");
  config::apply_overrides(config, overrides);
  return config;
}

inline RunSpec tiny_spec(const TinyLayout& layout) {
  return resolve(tiny_config(layout.overrides), layout.ranks);
}

inline std::vector<TinyLayout> tiny_layouts() {
  const std::string pp = "--distributed.pp_size=", ep = "--distributed.ep_size=";
  const std::string schedule = "--distributed.pipeline.pp_schedule=", local = "--step_scheduler.local_batch_size=";
  return {
      {"one", 1, {}},
      {"fsdp2", 2, {}},
      {"fsdp4", 4, {}},
      {"fsdp4_reshard", 4, {"--distributed.moe.reshard_after_forward=true"}},
      {"ep2", 2, {ep + "2"}},
      {"ep4_shard2", 8, {ep + "4"}},
      {"pp2", 2, {pp + "2", local + "8"}},
      {"pp2_vp2", 2, {pp + "2", local + "8", schedule + "interleaved1f1b", "--distributed.pipeline.virtual_stages=2"}},
      {"zb_h1_pp4", 4, {pp + "4", local + "8", schedule + "zb_h1"}},
      {"zb_h1_pp2_ep2", 4, {pp + "2", ep + "2", local + "4", schedule + "zb_h1"}},
      {"pp2_ep2_fsdp2", 4, {pp + "2", ep + "2", local + "4"}},
      {"recompute_selective", 1, {"--memory.recompute=selective"}},
      {"recompute_experts_ep2", 2, {ep + "2", "--memory.recompute=[experts]"}},
      {"recompute_dispatch_ep2", 2, {ep + "2", "--memory.recompute=[norm, dispatch]"}},
      {"recompute_full", 1, {"--memory.recompute=full"}},
      {"recompute_full_ep2", 2, {ep + "2", "--memory.recompute=full"}},
      {"recompute_full_pp2_vp2_ep2",
       4,
       {pp + "2", ep + "2", local + "4", schedule + "interleaved1f1b", "--distributed.pipeline.virtual_stages=2",
        "--memory.recompute=full"}},
      {"recompute_selective_zb_h1_pp2",
       2,
       {pp + "2", local + "8", schedule + "zb_h1", "--memory.recompute=selective"}}};
}

}  // namespace sluice::testing
