// Llama: pre-norm blocks of grouped-query attention (half-split RoPE, no biases) and a SwiGLU MLP.
// Source: the public config.json and modelling code of meta-llama/Llama-2-7b.
#include "model/gqa_decoder.h"

namespace sluice {
namespace {

ModelConfig parse(const HfConfig& config) {
  refuse(config, "mlp_bias", config.boolean("mlp_bias", false), "the MLP has no biases here");
  ModelConfig m = read_gqa_decoder(config, {.rope_theta = 1e4, .max_positions = 2048});
  m.ffn = config.integer("intermediate_size", model_bounds::width);
  return m;
}

}  // namespace

const Family& llama() {
  static constexpr Family family{.model_type = "llama",
                                 .experts_key = {},
                                 .expert_width_key = {},
                                 .ignores = {},
                                 .parse = &parse,
                                 .block = &dense_block,
                                 .flops_per_sequence = &dense_flops_per_sequence,
                                 .tensors = &dense_tensors};
  return family;
}

}  // namespace sluice
