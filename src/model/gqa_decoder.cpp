#include "model/gqa_decoder.h"

#include "base/error.h"
#include "model/rope_settings.h"

namespace sluice {

void refuse(const HfConfig& config, std::string_view key, bool present, std::string_view why) {
  if (present) throw user_error("{}: {}", config.describe(key), why).at(config.where(key));
}

ModelConfig read_gqa_decoder(const HfConfig& config, const GqaDefaults& defaults) {
  namespace bounds = model_bounds;
  refuse(config, "hidden_act", config.text("hidden_act", "silu") != "silu", "the activation must be silu");
  refuse(config, "attention_bias", config.boolean("attention_bias", false), "attention has no biases here");
  refuse(config, "attention_dropout", config.number("attention_dropout", {0, 1}, 0.0) != 0, "dropout is not supported");
  refuse(config, "tie_word_embeddings", config.boolean("tie_word_embeddings", false),
         "a head tied to the embedding is not supported");

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
  const RopeSettings rope = read_rope(config, defaults.rope_theta, m.head_dim);
  m.rope_theta = rope.theta;
  m.yarn = rope.yarn;
  m.norm_eps = config.number("rms_norm_eps", {1e-30, 1}, defaults.norm_eps);
  m.init_std = config.number("initializer_range", {0, 10}, 0.02);
  m.max_positions = config.integer("max_position_embeddings", bounds::positions, defaults.max_positions);
  return m;
}

BlockConfig gqa_block(const ModelConfig& m, int64_t layer, int64_t seq_len) {
  require(layer >= 0 && layer < m.num_layers && seq_len > 0, "block {} of {} for {} tokens", layer, m.num_layers,
          seq_len);
  BlockConfig block;
  block.attention = {.hidden = m.hidden_size,
                     .heads = m.num_heads,
                     .kv_heads = m.num_kv_heads,
                     .head_dim = m.head_dim,
                     .seq_len = seq_len,
                     .qk_norm = m.qk_norm};
  block.norm_eps = m.norm_eps;
  block.init_std = m.init_std;
  return block;
}

double gqa_flops_per_sequence(const ModelConfig& m, int64_t seq_len, int64_t mlp_width) {
  const auto real = [](int64_t v) { return static_cast<double>(v); };
  const double S = real(seq_len), D = real(m.hidden_size), hd = real(m.head_dim), n = real(m.num_heads);
  const double qkv = S * D * hd * (n + 2 * real(m.num_kv_heads));
  const double scores = S * S * hd * n;
  const double out = S * D * hd * n;
  const double mlp = S * D * 3 * real(mlp_width);
  return 6 * (real(m.num_layers) * (qkv + scores + out + mlp) + S * D * real(m.vocab_size));
}

void HubTensorList::whole(std::string hub, std::string ours, Shape shape) {
  const int64_t rows = shape.numel() / shape[shape.rank() - 1];
  list_.push_back({std::move(hub), shape, std::move(ours), shape, 0, rows});
}

void HubTensorList::embedding() {
  whole("model.embed_tokens.weight", "embedding.weight", {model_.vocab_size, model_.hidden_size});
}

void HubTensorList::attention(int64_t layer) {
  const std::string hub = fmt::format("model.layers.{}.", layer), ours = fmt::format("layers.{}.", layer);
  const int64_t D = model_.hidden_size, hd = model_.head_dim;
  const int64_t q_rows = model_.num_heads * hd, kv_rows = model_.num_kv_heads * hd;
  whole(hub + "input_layernorm.weight", ours + "norm1.gamma", {D});
  const Shape qkv{q_rows + 2 * kv_rows, D};
  const std::string qkv_name = ours + "attention.qkv.weight";
  list_.push_back({hub + "self_attn.q_proj.weight", {q_rows, D}, qkv_name, qkv, 0, q_rows});
  list_.push_back({hub + "self_attn.k_proj.weight", {kv_rows, D}, qkv_name, qkv, q_rows, kv_rows});
  list_.push_back({hub + "self_attn.v_proj.weight", {kv_rows, D}, qkv_name, qkv, q_rows + kv_rows, kv_rows});
  if (model_.qk_norm) {
    whole(hub + "self_attn.q_norm.weight", ours + "attention.q_norm.gamma", {hd});
    whole(hub + "self_attn.k_norm.weight", ours + "attention.k_norm.gamma", {hd});
  }
  whole(hub + "self_attn.o_proj.weight", ours + "attention.out.weight", {D, q_rows});
  whole(hub + "post_attention_layernorm.weight", ours + "norm2.gamma", {D});
}

void HubTensorList::mlp(int64_t layer) {
  const std::string hub = fmt::format("model.layers.{}.mlp.", layer), ours = fmt::format("layers.{}.mlp.", layer);
  const int64_t D = model_.hidden_size, F = model_.ffn;
  list_.push_back({hub + "gate_proj.weight", {F, D}, ours + "gate_up.weight", {2 * F, D}, 0, F});
  list_.push_back({hub + "up_proj.weight", {F, D}, ours + "gate_up.weight", {2 * F, D}, F, F});
  whole(hub + "down_proj.weight", ours + "down.weight", {D, F});
}

void HubTensorList::experts(int64_t layer) {
  const std::string hub = fmt::format("model.layers.{}.mlp.", layer), ours = fmt::format("layers.{}.moe.", layer);
  const int64_t D = model_.hidden_size, E = model_.num_experts, F = model_.moe_ffn;
  whole(hub + "gate.weight", ours + "router.weight", {E, D});
  const Shape gate_up{E, 2 * F, D}, down{E, D, F};
  for (int64_t e = 0; e < E; ++e) {
    const std::string expert = fmt::format("{}experts.{}.", hub, e);
    const std::string gate_up_name = ours + "experts.gate_up";
    list_.push_back({expert + "gate_proj.weight", {F, D}, gate_up_name, gate_up, 2 * F * e, F, e});
    list_.push_back({expert + "up_proj.weight", {F, D}, gate_up_name, gate_up, 2 * F * e + F, F, e});
    list_.push_back({expert + "down_proj.weight", {D, F}, ours + "experts.down", down, D * e, D, e});
  }
}

void HubTensorList::head() {
  whole("model.norm.weight", "final_norm.gamma", {model_.hidden_size});
  whole("lm_head.weight", "head.weight", {model_.vocab_size, model_.hidden_size});
}

BlockConfig dense_block(const ModelConfig& m, int64_t layer, int64_t seq_len) {
  BlockConfig block = gqa_block(m, layer, seq_len);
  block.mlp_ffn = m.ffn;
  return block;
}

double dense_flops_per_sequence(const ModelConfig& m, int64_t seq_len) {
  return gqa_flops_per_sequence(m, seq_len, m.ffn);
}

std::vector<HubTensor> dense_tensors(const ModelConfig& m) {
  HubTensorList list(m);
  list.embedding();
  for (int64_t layer = 0; layer < m.num_layers; ++layer) {
    list.attention(layer);
    list.mlp(layer);
  }
  list.head();
  return list.take();
}

}  // namespace sluice
