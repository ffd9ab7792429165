// What a model's parameters are made from, where a test needs no run.
#pragma once

#include "model/family.h"
#include "parallel/stage.h"

namespace sluice::test {

inline StageConfig stage_config(const ModelConfig& model, DType dtype, int64_t seq_len = 8) {
  StageConfig stage;
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    stage.blocks.push_back(family_of(model).block(model, layer, seq_len));
  }
  if (model.mtp) stage.mtp = family_of(model).block(model, model.num_layers, seq_len);
  stage.vocab = model.vocab_size;
  stage.hidden = model.hidden_size;
  stage.seq_len = seq_len;
  stage.norm_eps = model.norm_eps;
  stage.init_std = model.init_std;
  stage.rope_theta = model.rope_theta;
  stage.yarn = model.yarn;
  stage.dense_groups.dtype = stage.expert_groups.dtype = dtype;
  return stage;
}

}  // namespace sluice::test
