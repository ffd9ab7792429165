// Qwen3, dense: pre-norm blocks of grouped-query attention (RMSNorm on each head of q and k before half-split RoPE, no
// biases) and a SwiGLU MLP.
// Source: the public config.json and modelling code of Qwen/Qwen3-8B.
#include <array>

#include "model/gqa_decoder.h"

namespace sluice {
namespace {

constexpr auto ignored_fields_of_family = std::to_array<IgnoredField>({
    {"layer_types", "use_sliding_window is off"},
    {"max_window_layers", "use_sliding_window is off"},
    {"sliding_window", "use_sliding_window is off"},
});

ModelConfig parse(const HfConfig& config) {
  refuse(config, "use_sliding_window", config.boolean("use_sliding_window", false),
         "sliding windows are not supported for this family");
  ModelConfig m = read_gqa_decoder(
      config, {.rope_theta = 1e4, .max_positions = 32768, .derives_head_dim = false, .derives_kv_heads = false});
  m.ffn = config.integer("intermediate_size", model_bounds::width);
  m.qk_norm = true;
  return m;
}

}  // namespace

const Family& qwen3() {
  static constexpr Family family{.model_type = "qwen3",
                                 .experts_key = {},
                                 .expert_width_key = {},
                                 .ignores = ignored_fields_of_family,
                                 .parse = &parse,
                                 .block = &dense_block,
                                 .flops_per_sequence = &dense_flops_per_sequence,
                                 .tensors = &dense_tensors};
  return family;
}

}  // namespace sluice
