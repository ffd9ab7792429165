// Qwen3 MoE: pre-norm blocks of grouped-query attention (RMSNorm on each head of q and k before half-split RoPE, no
// biases) and softmax-routed experts (top-k of the softmax, renormalised or not; SwiGLU; no shared expert). Some
// layers may have an MLP instead.
// Source: the public config.json and modelling code of Qwen/Qwen3-30B-A3B.
#include <array>
#include <string>

#include "base/error.h"
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
  refuse(config, "use_sliding_window", config.boolean("use_sliding_window", false),
         "sliding windows are not supported for this family");
}

// Layers with an MLP instead of experts.
void read_dense_layers(const HfConfig& config, ModelConfig& m) {
  namespace bounds = model_bounds;
  m.sparse_step = config.integer("decoder_sparse_step", bounds::layers, 1);
  const std::string list = "mlp_only_layers";
  refuse(config, list, config.has(list) && !config.has(list + ".0"), "a list of layers is expected");
  for (int64_t n = 0; config.has(fmt::format("{}.{}", list, n)); ++n) {
    m.mlp_layers.push_back(config.integer(fmt::format("{}.{}", list, n), {0, bounds::layers.high}));
  }
  const int64_t sparse = m.count_with_experts();
  if (sparse == 0) {
    throw user_error("none of {} layers has experts", m.num_layers)
        .at(config.where(config.has(list) ? list : "decoder_sparse_step"))
        .advise("decoder_sparse_step and mlp_only_layers leave some, or model_type: qwen3");
  }
  if (sparse < m.num_layers) m.ffn = config.integer("intermediate_size", bounds::width, 6144);
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
  m.renormalize = config.boolean("norm_topk_prob", false);
  m.qk_norm = true;
  read_dense_layers(config, m);
  m.aux_loss_coef = config.number("router_aux_loss_coef", {0, 1e3}, 0.001);
  m.config_aux_loss_coef = m.aux_loss_coef;
  return m;
}

BlockConfig block(const ModelConfig& m, int64_t layer, int64_t seq_len) {
  if (!m.has_experts(layer)) return dense_block(m, layer, seq_len);
  BlockConfig block = gqa_block(m, layer, seq_len);
  block.moe = {.hidden = m.hidden_size,
               .ffn = m.moe_ffn,
               .num_experts = m.num_experts,
               .top_k = m.top_k,
               .seq_len = seq_len,
               .router = RouterKind::softmax_topk,
               .gate = {.num_experts = m.num_experts, .top_k = m.top_k},
               .renormalize = m.renormalize};
  return block;
}

double flops_per_sequence(const ModelConfig& m, int64_t seq_len) {
  const int64_t sparse = m.count_with_experts();
  return gqa_flops_per_sequence(m, seq_len, sparse * m.moe_ffn * m.top_k + (m.num_layers - sparse) * m.ffn);
}

std::vector<HubTensor> tensors(const ModelConfig& m) {
  HubTensorList list(m);
  list.embedding();
  for (int64_t layer = 0; layer < m.num_layers; ++layer) {
    list.attention(layer);
    if (!m.has_experts(layer)) {
      list.mlp(layer, "mlp.", m.ffn);
      continue;
    }
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
