#include "model/gqa_decoder.h"

#include "base/error.h"
#include "model/rope_settings.h"

namespace sluice {

void refuse(const HfConfig& config, std::string_view key, bool present, std::string_view why) {
  if (present) throw user_error("{}: {}", config.describe(key), why).at(config.where(key));
}

ModelConfig read_decoder(const HfConfig& config, const DecoderDefaults& defaults) {
  namespace bounds = model_bounds;
  refuse(config, "hidden_act", config.text("hidden_act", "silu") != "silu", "the activation must be silu");
  refuse(config, "attention_dropout", config.number("attention_dropout", {0, 1}, 0.0) != 0, "dropout is not supported");

  ModelConfig m;
  m.vocab_size = config.integer("vocab_size", bounds::vocab);
  m.hidden_size = config.integer("hidden_size", bounds::width);
  m.num_layers = config.integer("num_hidden_layers", bounds::layers);
  m.num_heads = config.integer("num_attention_heads", bounds::heads);
  const bool given = config.fields().contains("num_key_value_heads");  // null too
  m.num_kv_heads = defaults.derives_kv_heads || given
                       ? config.integer("num_key_value_heads", bounds::heads, m.num_heads)
                       : config.integer("num_key_value_heads", bounds::heads);
  m.tied_head = config.boolean("tie_word_embeddings", false);
  m.attention_bias = config.boolean("attention_bias", defaults.attention_bias);
  m.norm_eps = config.number("rms_norm_eps", {1e-30, 1}, defaults.norm_eps);
  m.init_std = config.number("initializer_range", {0, 10}, 0.02);
  m.max_positions = config.integer("max_position_embeddings", bounds::positions, defaults.max_positions);
  return m;
}

ModelConfig read_gqa_decoder(const HfConfig& config, const DecoderDefaults& defaults) {
  ModelConfig m = read_decoder(config, defaults);
  if (!defaults.derives_head_dim) config.integer("head_dim", model_bounds::head_dim);
  if (!config.has("head_dim") && m.hidden_size % m.num_heads != 0) {
    throw user_error("num_attention_heads {} does not divide hidden_size {}", m.num_heads, m.hidden_size)
        .at(config.where("num_attention_heads"))
        .advise("give head_dim");
  }
  m.head_dim = config.integer("head_dim", model_bounds::head_dim, m.hidden_size / m.num_heads);
  const RopeSettings rope = read_rope(config, defaults.rope_theta, m.head_dim);
  m.rope_theta = rope.theta;
  m.rope_scaling = rope.scaling;
  return m;
}

BlockConfig gqa_block(const ModelConfig& m, int64_t layer, int64_t seq_len) {
  require(layer >= 0 && layer < m.num_layers && seq_len > 0, "block {} of {} for {} tokens", layer, m.num_layers,
          seq_len);
  BlockConfig block;
  block.attention = GroupedQueryConfig{.hidden = m.hidden_size,
                                       .heads = m.num_heads,
                                       .kv_heads = m.num_kv_heads,
                                       .head_dim = m.head_dim,
                                       .seq_len = seq_len,
                                       .qk_norm = m.qk_norm,
                                       .bias = m.attention_bias};
  block.norm_eps = m.norm_eps;
  block.init_std = m.init_std;
  return block;
}

double gqa_flops_per_sequence(const ModelConfig& m, int64_t seq_len, int64_t mlp_widths) {
  const auto real = [](int64_t v) { return static_cast<double>(v); };
  const double S = real(seq_len), D = real(m.hidden_size), hd = real(m.head_dim), n = real(m.num_heads);
  const double qkv = S * D * hd * (n + 2 * real(m.num_kv_heads));
  const double scores = S * S * hd * n;
  const double out = S * D * hd * n;
  const double mlps = S * D * 3 * real(mlp_widths);
  return 6 * (real(m.num_layers) * (qkv + scores + out) + mlps + S * D * real(m.vocab_size));
}

BlockConfig dense_block(const ModelConfig& m, int64_t layer, int64_t seq_len) {
  BlockConfig block = gqa_block(m, layer, seq_len);
  block.mlp_ffn = m.ffn;
  return block;
}

double dense_flops_per_sequence(const ModelConfig& m, int64_t seq_len) {
  return gqa_flops_per_sequence(m, seq_len, m.num_layers * m.ffn);
}

std::vector<HubTensor> dense_tensors(const ModelConfig& m) {
  HubTensorList list(m);
  list.embedding();
  for (int64_t layer = 0; layer < m.num_layers; ++layer) {
    list.attention(layer);
    list.mlp(layer, "mlp.", m.ffn);
  }
  list.head();
  return list.take();
}

}  // namespace sluice
