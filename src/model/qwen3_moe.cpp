// Qwen3 MoE: pre-norm blocks of grouped-query attention (RMSNorm on each head of q and k before half-split RoPE, no
// biases) and softmax-routed experts (top-k of the softmax, renormalised; SwiGLU; no shared expert), an untied head.
// Source: the public config.json and modelling code of Qwen/Qwen3-30B-A3B.
#include <array>

#include "base/error.h"
#include "model/family.h"
#include "model/rope_settings.h"

namespace sluice {
namespace {

constexpr auto read_fields = std::to_array<std::string_view>({
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_experts",
    "num_local_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "norm_topk_prob",
    "router_aux_loss_coef",
    "rms_norm_eps",
    "initializer_range",
    "max_position_embeddings",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "hidden_act",
    "attention_bias",
    "attention_dropout",
    "decoder_sparse_step",
    "mlp_only_layers",
    "tie_word_embeddings",
    "use_sliding_window",
});

constexpr auto ignored_fields_of_family = std::to_array<IgnoredField>({
    {"intermediate_size", "the width of dense layers, of which there are none"},
    {"max_window_layers", "use_sliding_window is off"},
    {"output_router_logits", "a setting of Python modules"},
    {"sliding_window", "use_sliding_window is off"},
});

// What Hugging Face's class can be and this engine's family cannot.
void refuse(const HfConfig& config, std::string_view key, bool present, std::string_view why) {
  if (present) throw user_error("{}: {}", config.describe(key), why).at(config.where(key));
}

void refuse_unsupported(const HfConfig& config) {
  refuse(config, "hidden_act", config.text("hidden_act", "silu") != "silu", "the experts' activation must be silu");
  refuse(config, "attention_bias", config.boolean("attention_bias", false), "attention has no biases here");
  refuse(config, "attention_dropout", config.number("attention_dropout", {0, 1}, 0.0) != 0, "dropout is not supported");
  refuse(config, "norm_topk_prob", !config.boolean("norm_topk_prob", true), "top-k weights are always renormalised");
  refuse(config, "decoder_sparse_step", config.integer("decoder_sparse_step", {}, 1) != 1,
         "dense layers between the others are not supported");
  refuse(config, "mlp_only_layers", config.has("mlp_only_layers"), "dense layers between the others are not supported");
  refuse(config, "tie_word_embeddings", config.boolean("tie_word_embeddings", false),
         "a head tied to the embedding is not supported");
  refuse(config, "use_sliding_window", config.boolean("use_sliding_window", false),
         "sliding windows are not supported for this family");
}

ModelConfig parse(const HfConfig& source) {
  namespace bounds = model_bounds;
  HfConfig config = source;
  config.unify("num_experts", "num_local_experts");
  refuse_unsupported(config);

  ModelConfig m;
  m.vocab_size = config.integer("vocab_size", bounds::vocab);
  m.hidden_size = config.integer("hidden_size", bounds::width);
  m.num_layers = config.integer("num_hidden_layers", bounds::layers);
  m.num_heads = config.integer("num_attention_heads", bounds::heads);
  m.num_kv_heads = config.integer("num_key_value_heads", bounds::heads, m.num_heads);
  if (!config.has("head_dim") && m.hidden_size % m.num_heads != 0) {
    throw user_error("num_attention_heads {} does not divide hidden_size {}", m.num_heads, m.hidden_size)
        .at(config.where("num_attention_heads"))
        .advise("give head_dim");
  }
  m.head_dim = config.integer("head_dim", bounds::head_dim, m.hidden_size / m.num_heads);
  m.num_experts = config.integer("num_experts", bounds::experts);
  m.top_k = config.integer("num_experts_per_tok", bounds::experts);
  m.moe_ffn = config.integer("moe_intermediate_size", bounds::width);
  m.qk_norm = true;
  m.rope_theta = read_rope(config, 1e6).theta;
  m.norm_eps = config.number("rms_norm_eps", {1e-30, 1}, 1e-6);
  m.init_std = config.number("initializer_range", {0, 10}, 0.02);
  m.max_positions = config.integer("max_position_embeddings", bounds::positions, 40960);
  m.aux_loss_coef = config.number("router_aux_loss_coef", {0, 1e3}, 0.001);
  return m;
}

BlockConfig block(const ModelConfig& m, int64_t layer, int64_t seq_len) {
  require(layer >= 0 && layer < m.num_layers && seq_len > 0, "block {} of {} for {} tokens", layer, m.num_layers,
          seq_len);
  BlockConfig block;
  block.attention = {.hidden = m.hidden_size,
                     .heads = m.num_heads,
                     .kv_heads = m.num_kv_heads,
                     .head_dim = m.head_dim,
                     .seq_len = seq_len,
                     .qk_norm = m.qk_norm};
  block.moe = {.hidden = m.hidden_size,
               .ffn = m.moe_ffn,
               .num_experts = m.num_experts,
               .top_k = m.top_k,
               .seq_len = seq_len,
               .router = RouterKind::softmax_topk,
               .gate = {.num_experts = m.num_experts, .top_k = m.top_k}};
  block.norm_eps = m.norm_eps;
  block.init_std = m.init_std;
  return block;
}

// 6 L S D^2 (hd n / D) [(2 kv / n + 1) + S / D + 1] + 6 L S D 3 F K + 6 S D V, with the divisions done: integers
// below 2^53 stay exact.
double flops_per_sequence(const ModelConfig& m, int64_t seq_len) {
  const auto real = [](int64_t v) { return static_cast<double>(v); };
  const double S = real(seq_len), D = real(m.hidden_size), hd = real(m.head_dim), n = real(m.num_heads);
  const double qkv = S * D * hd * (n + 2 * real(m.num_kv_heads));
  const double scores = S * S * hd * n;
  const double out = S * D * hd * n;
  const double experts = S * D * 3 * real(m.moe_ffn) * real(m.top_k);
  return 6 * (real(m.num_layers) * (qkv + scores + out + experts) + S * D * real(m.vocab_size));
}

std::vector<HubTensor> tensors(const ModelConfig& m) {
  const int64_t V = m.vocab_size, D = m.hidden_size, E = m.num_experts, F = m.moe_ffn, hd = m.head_dim;
  const int64_t q_rows = m.num_heads * hd, kv_rows = m.num_kv_heads * hd;
  std::vector<HubTensor> list;
  list.reserve(static_cast<size_t>(3 + m.num_layers * (9 + 3 * E)));
  const auto whole = [&](std::string hub, std::string ours, Shape shape) {
    const int64_t rows = shape.numel() / shape[shape.rank() - 1];
    list.push_back({std::move(hub), shape, std::move(ours), shape, 0, rows});
  };

  whole("model.embed_tokens.weight", "embedding.weight", {V, D});
  for (int64_t layer = 0; layer < m.num_layers; ++layer) {
    const std::string hub = fmt::format("model.layers.{}.", layer), ours = fmt::format("layers.{}.", layer);
    whole(hub + "input_layernorm.weight", ours + "norm1.gamma", {D});
    const Shape qkv{q_rows + 2 * kv_rows, D};
    const std::string qkv_name = ours + "attention.qkv.weight";
    list.push_back({hub + "self_attn.q_proj.weight", {q_rows, D}, qkv_name, qkv, 0, q_rows});
    list.push_back({hub + "self_attn.k_proj.weight", {kv_rows, D}, qkv_name, qkv, q_rows, kv_rows});
    list.push_back({hub + "self_attn.v_proj.weight", {kv_rows, D}, qkv_name, qkv, q_rows + kv_rows, kv_rows});
    whole(hub + "self_attn.q_norm.weight", ours + "attention.q_norm.gamma", {hd});
    whole(hub + "self_attn.k_norm.weight", ours + "attention.k_norm.gamma", {hd});
    whole(hub + "self_attn.o_proj.weight", ours + "attention.out.weight", {D, q_rows});
    whole(hub + "post_attention_layernorm.weight", ours + "norm2.gamma", {D});
    whole(hub + "mlp.gate.weight", ours + "moe.router.weight", {E, D});
    const Shape gate_up{E, 2 * F, D}, down{E, D, F};
    for (int64_t e = 0; e < E; ++e) {
      const std::string expert = fmt::format("{}mlp.experts.{}.", hub, e);
      const std::string gate_up_name = ours + "moe.experts.gate_up";
      list.push_back({expert + "gate_proj.weight", {F, D}, gate_up_name, gate_up, 2 * F * e, F, e});
      list.push_back({expert + "up_proj.weight", {F, D}, gate_up_name, gate_up, 2 * F * e + F, F, e});
      list.push_back({expert + "down_proj.weight", {D, F}, ours + "moe.experts.down", down, D * e, D, e});
    }
  }
  whole("model.norm.weight", "final_norm.gamma", {D});
  whole("lm_head.weight", "head.weight", {V, D});
  return list;
}

}  // namespace

const Family& qwen3_moe() {
  static constexpr Family family{.model_type = "qwen3_moe",
                                 .experts_key = "num_experts",
                                 .reads = read_fields,
                                 .ignores = ignored_fields_of_family,
                                 .parse = &parse,
                                 .block = &block,
                                 .flops_per_sequence = &flops_per_sequence,
                                 .tensors = &tensors};
  return family;
}

}  // namespace sluice
