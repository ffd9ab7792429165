// What the configuration's tests share.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "config/load.h"

namespace sluice::config {

// The text a person sees for the user error that `act` throws; fails the test when it throws none or another kind.
template <class Act>
std::string error_of(Act act) {
  try {
    act();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user) << error.what();
    return describe(error);
  }
  ADD_FAILURE() << "no error";
  return {};
}

inline std::string parse_error(const std::string& yaml) {
  return error_of([&] { parse(yaml, "my.yaml"); });
}

inline void override_with(Config& config, const std::vector<std::string>& arguments) {
  apply_overrides(config, arguments);
}

inline std::string override_error(const std::vector<std::string>& arguments) {
  Config config;
  return error_of([&] { override_with(config, arguments); });
}

// A configuration that validates.
inline constexpr const char* valid_yaml = R"(recipe: benchmark
seed: 7
step_scheduler:
  global_batch_size: 64
  local_batch_size: 4
  max_steps: 12
distributed:
  pp_size: 2
  ep_size: 4
  activation_checkpointing: selective
  pipeline:
    pp_schedule: interleaved1f1b
    pp_microbatch_size: 2
    virtual_stages: 2
model:
  config:
    pretrained_model_name_or_path: Qwen/Qwen3-30B-A3B
    num_hidden_layers: 8
    rope_scaling: {type: yarn, factor: 40}
    layer_types: [full, "sliding", 3]
  backend:
    fake_balanced_gate: true
optimizer:
  _target_: torch.optim.AdamW
  lr: 3e-4
  betas: [0.9, 0.95]
  weight_decay: 0.1
lr_scheduler: {lr_decay_style: cosine, lr_warmup_steps: 2, min_lr: 1e-5}
dataset:
  _target_: mock
  seq_len: 512
memory:
  recompute: [norm, act]
ci:
  time: "0:10"
)";

}  // namespace sluice::config
