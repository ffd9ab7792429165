// A model small enough to run in milliseconds, on any layout.
#pragma once

#include <string>
#include <vector>

#include "support/training.h"

namespace sluice::test {

// 3 steps of the tiny model in f32, by the published gate unless `overrides` say otherwise.
inline Config planned_config(const std::vector<std::string>& overrides, const std::string& family = "qwen3_moe") {
  std::vector<std::string> all = {"--step_scheduler.max_steps=3", "--benchmark.balance=published",
                                  "--runtime.dtype=f32"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  return tiny_config(all, family);
}

inline RunSpec tiny_spec(const Layout& layout) {
  return resolve(planned_config(layout.overrides, layout.family), layout.ranks);
}

inline std::vector<Layout> tiny_layouts() {
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
      {"recompute_selective_zb_h1_pp2", 2, {pp + "2", local + "8", schedule + "zb_h1", "--memory.recompute=selective"}},
      {"deepseek_v3_pp2_ep2_fsdp2", 4, {pp + "2", ep + "2", local + "4"}, "deepseek_v3"},
      {"deepseek_v3_recompute_selective_zb_h1_pp2",
       2,
       {pp + "2", local + "8", schedule + "zb_h1", "--memory.recompute=selective"},
       "deepseek_v3"},
      {"gpt_oss_ep2_fsdp4_reshard", 4, {ep + "2", "--distributed.moe.reshard_after_forward=true"}, "gpt_oss"},
      {"gpt_oss_recompute_full_zb_h1_pp2_ep2",
       4,
       {pp + "2", ep + "2", local + "4", schedule + "zb_h1", "--memory.recompute=full"},
       "gpt_oss"},
      {"local_shard", 1, {"--benchmark.local_shard=4"}},
      {"local_shard_fsdp2_no_optimizer", 2, {"--benchmark.local_shard=2", "--benchmark.optimizer=false"}}};
}

}  // namespace sluice::test
