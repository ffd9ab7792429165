// GPT-OSS: pre-norm blocks of grouped-query attention with biases and learned sinks, sliding and full in turn, and
// experts with biases and the clamped gate, chosen by the largest logits of a router with a bias.
// Source: the public config.json and modelling code of openai/gpt-oss-20b.
#include <algorithm>
#include <array>

#include "base/error.h"
#include "model/gqa_decoder.h"

namespace sluice {
namespace {

constexpr double gate_alpha = 1.702;
constexpr std::string_view sliding = "sliding_attention", full = "full_attention";

constexpr auto ignored_fields_of_family = std::to_array<IgnoredField>({
    {"initial_context_length", "rope_scaling says it"},
    {"output_router_logits", "a setting of Python modules"},
});

bool slides(int64_t layer) {
  return layer % 2 == 0;
}

void refuse_other_layers(const HfConfig& config, int64_t layers) {
  if (!config.has("layer_types")) return;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const std::string key = fmt::format("layer_types.{}", layer);
    const std::string expected(slides(layer) ? sliding : full);
    refuse(config, key, config.text(key, expected) != expected, "layers slide and attend to everything in turn here");
  }
}

ModelConfig parse(const HfConfig& source) {
  namespace bounds = model_bounds;
  HfConfig config = source;
  // Hugging Face's class reads num_experts_per_tok alone.
  config.integer("num_experts_per_tok", bounds::experts);
  config.unify("num_experts_per_tok", "experts_per_token");
  if (!config.has("rope_scaling") && !config.has("rope_parameters")) {
    throw user_error("the model configuration lacks rope_scaling")
        .at(config.source())
        .advise("Hugging Face's class stretches positions by YaRN then; {rope_type: default} is plain positions");
  }
  ModelConfig m = read_gqa_decoder(config, {.rope_theta = 1.5e5,
                                            .norm_eps = 1e-5,
                                            .max_positions = 131072,
                                            .attention_bias = true,
                                            .derives_head_dim = false,
                                            .derives_kv_heads = false});
  refuse_other_layers(config, m.num_layers);
  m.num_experts = config.integer("num_local_experts", bounds::experts);
  m.top_k = config.integer("num_experts_per_tok", bounds::experts);
  m.moe_ffn = config.integer("intermediate_size", bounds::width);
  m.window = config.integer("sliding_window", bounds::positions, 128);
  m.config_aux_loss_coef = config.number("router_aux_loss_coef", {0, 1e3}, 0.9);  // the class's default
  m.gate_form = {.limit = config.number("swiglu_limit", {1e-3, 1e6}, 7.0), .alpha = gate_alpha};
  return m;
}

BlockConfig block(const ModelConfig& m, int64_t layer, int64_t seq_len) {
  BlockConfig block = gqa_block(m, layer, seq_len);
  auto& attention = std::get<GroupedQueryConfig>(block.attention);
  attention.window = slides(layer) ? m.window : 0;
  attention.sinks = true;
  block.moe = {.hidden = m.hidden_size,
               .ffn = m.moe_ffn,
               .num_experts = m.num_experts,
               .top_k = m.top_k,
               .seq_len = seq_len,
               .router = RouterKind::softmax_topk,
               .gate = {.num_experts = m.num_experts, .top_k = m.top_k},
               .router_bias = true,
               .expert_bias = true,
               .gate_form = m.gate_form};
  return block;
}

// Per layer 6 [S D hd (n + 2 kv) + S D hd n + 2 n hd nz + S K 3 D F], nz the pairs of query and key that meet; 6 S D V.
double flops_per_sequence(const ModelConfig& m, int64_t seq_len) {
  const auto real = [](int64_t v) { return static_cast<double>(v); };
  const double S = real(seq_len), D = real(m.hidden_size), hd = real(m.head_dim), n = real(m.num_heads);
  const double projections = S * D * hd * (n + 2 * real(m.num_kv_heads)) + S * D * hd * n;
  const double experts = S * real(m.top_k) * 3 * D * real(m.moe_ffn);
  double sum = S * D * real(m.vocab_size);
  for (int64_t layer = 0; layer < m.num_layers; ++layer) {
    const double w = real(slides(layer) ? std::min(m.window, seq_len) : seq_len);
    const double pairs = w * (w + 1) / 2 + (S - w) * w;
    sum += projections + 2 * n * hd * pairs + experts;
  }
  return 6 * sum;
}

std::vector<HubTensor> tensors(const ModelConfig& m) {
  HubTensorList list(m);
  list.embedding();
  for (int64_t layer = 0; layer < m.num_layers; ++layer) {
    list.attention(layer, /*sinks=*/true);
    list.router(layer, "mlp.router", /*bias=*/true);
    list.stacked_experts(layer);
  }
  list.head();
  return list.take();
}

}  // namespace

const Family& gpt_oss() {
  static constexpr Family family{.model_type = "gpt_oss",
                                 .experts_key = "num_local_experts",
                                 .expert_width_key = "intermediate_size",
                                 .ignores = ignored_fields_of_family,
                                 .parse = &parse,
                                 .block = &block,
                                 .flops_per_sequence = &flops_per_sequence,
                                 .tensors = &tensors};
  return family;
}

}  // namespace sluice
