// Qwen3 MoE: pre-norm blocks of grouped-query attention (RMSNorm on each head of q and k before half-split RoPE, no
// biases) and softmax-routed experts (top-k of the softmax, renormalised; SwiGLU; no shared expert), an untied head.
// Source: the public config.json and modelling code of Qwen/Qwen3-30B-A3B.
#include <array>

#include "model/gqa_decoder.h"

namespace sluice {
namespace {

constexpr auto ignored_fields_of_family = std::to_array<IgnoredField>({
    {"intermediate_size", "the width of dense layers, of which there are none"},
    {"max_window_layers", "use_sliding_window is off"},
    {"output_router_logits", "a setting of Python modules"},
    {"sliding_window", "use_sliding_window is off"},
});

// What Hugging Face's class can be and this engine's family cannot.
void refuse_unsupported(const HfConfig& config) {
  refuse(config, "norm_topk_prob", !config.boolean("norm_topk_prob"), "top-k weights are always renormalised");
  refuse(config, "decoder_sparse_step", config.integer("decoder_sparse_step", {}, 1) != 1,
         "dense layers between the others are not supported");
  refuse(config, "mlp_only_layers", config.has("mlp_only_layers"), "dense layers between the others are not supported");
  refuse(config, "use_sliding_window", config.boolean("use_sliding_window", false),
         "sliding windows are not supported for this family");
}

ModelConfig parse(const HfConfig& source) {
  namespace bounds = model_bounds;
  HfConfig config = source;
  config.unify("num_experts", "num_local_experts");
  refuse_unsupported(config);
  ModelConfig m = read_gqa_decoder(config, {.rope_theta = 1e4, .max_positions = 32768, .derives_kv_heads = false});
  m.num_experts = config.integer("num_experts", bounds::experts);
  m.top_k = config.integer("num_experts_per_tok", bounds::experts);
  m.moe_ffn = config.integer("moe_intermediate_size", bounds::width);
  m.qk_norm = true;
  m.aux_loss_coef = config.number("router_aux_loss_coef", {0, 1e3}, 0.001);
  m.config_aux_loss_coef = m.aux_loss_coef;
  return m;
}

BlockConfig block(const ModelConfig& m, int64_t layer, int64_t seq_len) {
  BlockConfig block = gqa_block(m, layer, seq_len);
  block.moe = {.hidden = m.hidden_size,
               .ffn = m.moe_ffn,
               .num_experts = m.num_experts,
               .top_k = m.top_k,
               .seq_len = seq_len,
               .router = RouterKind::softmax_topk,
               .gate = {.num_experts = m.num_experts, .top_k = m.top_k}};
  return block;
}

double flops_per_sequence(const ModelConfig& m, int64_t seq_len) {
  return gqa_flops_per_sequence(m, seq_len, m.moe_ffn * m.top_k);
}

std::vector<HubTensor> tensors(const ModelConfig& m) {
  HubTensorList list(m);
  list.embedding();
  for (int64_t layer = 0; layer < m.num_layers; ++layer) {
    list.attention(layer);
    list.router(layer, "mlp.gate");
    list.experts(layer);
  }
  list.head();
  return list.take();
}

}  // namespace

const Family& qwen3_moe() {
  static constexpr Family family{.model_type = "qwen3_moe",
                                 .experts_key = "num_experts",
                                 .expert_width_key = "moe_intermediate_size",
                                 .ignores = ignored_fields_of_family,
                                 .parse = &parse,
                                 .block = &block,
                                 .flops_per_sequence = &flops_per_sequence,
                                 .tensors = &tensors};
  return family;
}

}  // namespace sluice
