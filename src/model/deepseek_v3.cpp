// DeepSeek V3 and Kimi K2, the same network: pre-norm blocks of multi-head latent attention and, after the first dense
// layers, sigmoid-routed experts (groups, a selection bias, weights renormalised and scaled) beside a shared one; an
// untied head; where it is asked for, the extra layer that predicts the token after the next.
// Source: the public config.json and modelling code of deepseek-ai/DeepSeek-V3 and moonshotai/Kimi-K2-Base.
#include <array>

#include "base/error.h"
#include "model/gqa_decoder.h"
#include "model/rope_settings.h"

namespace sluice {
namespace {

constexpr auto ignored_fields_of_family = std::to_array<IgnoredField>({
    {"aux_loss_alpha", "the selection bias keeps experts balanced; model.aux_loss_coef adds a balance loss"},
    {"ep_size", "distributed.ep_size decides"},
    {"head_dim", "qk_rope_head_dim says it"},
    {"qk_head_dim", "qk_nope_head_dim and qk_rope_head_dim say it"},
    {"seq_aux", "model.aux_loss_over says what the balance loss is over, unless given each sequence"},
});

void refuse_unsupported(const HfConfig& config) {
  refuse(config, "moe_layer_freq", config.integer("moe_layer_freq", {}, 1) != 1,
         "dense layers between the others are not supported");
  refuse(config, "scoring_func", config.text("scoring_func", "sigmoid") != "sigmoid", "scores are sigmoids here");
  refuse(config, "topk_method", config.text("topk_method", "noaux_tc") != "noaux_tc",
         "experts are chosen by noaux_tc here");
  refuse(config, "rope_interleave", !config.boolean("rope_interleave", true), "rotary pairs are neighbours here");
}

ModelConfig parse(const HfConfig& config) {
  namespace bounds = model_bounds;
  refuse_unsupported(config);
  ModelConfig m = read_decoder(config, {.max_positions = 163840, .derives_kv_heads = false});
  refuse(config, "tie_word_embeddings", m.tied_head, "the head has a matrix of its own here");
  refuse(config, "attention_bias", m.attention_bias, "latent attention has no biases here");
  refuse(config, "num_key_value_heads", m.num_kv_heads != m.num_heads, "every query head has its own key here");
  // null: queries come from the hidden state
  m.q_lora = config.fields().contains("q_lora_rank") ? config.integer("q_lora_rank", bounds::width, 0)
                                                     : config.integer("q_lora_rank", bounds::width);
  m.kv_lora = config.integer("kv_lora_rank", bounds::width);
  m.nope_dim = config.integer("qk_nope_head_dim", bounds::head_dim);
  m.head_dim = config.integer("qk_rope_head_dim", bounds::head_dim);
  m.v_dim = config.integer("v_head_dim", bounds::head_dim);
  const RopeSettings rope = read_rope(config, 1e4, m.head_dim);
  m.rope_theta = rope.theta;
  m.rope_scaling = rope.scaling;
  const double growth = rope.mscale_all_dim > 0 ? yarn_mscale(rope.scaling.factor, rope.mscale_all_dim) : 1;
  m.mla_scale = growth * growth;
  m.ffn = config.integer("intermediate_size", bounds::width);
  m.dense_layers = config.integer("first_k_dense_replace", {0, m.num_layers});
  m.num_experts = config.integer("n_routed_experts", bounds::experts);
  m.top_k = config.integer("num_experts_per_tok", bounds::experts);
  m.moe_ffn = config.integer("moe_intermediate_size", bounds::width);
  m.shared_experts = config.integer("n_shared_experts", {0, 64});
  m.nextn_layers = config.integer("num_nextn_predict_layers", {0, 64}, 0);
  m.sigmoid = {.groups = config.integer("n_group", bounds::experts),
               .top_groups = config.integer("topk_group", bounds::experts),
               .normalize = config.boolean("norm_topk_prob", true),
               .scale = config.number("routed_scaling_factor", {1e-6, 1e6})};
  return m;
}

BlockConfig block(const ModelConfig& m, int64_t layer, int64_t seq_len) {
  require(layer >= 0 && layer < m.num_layers + (m.mtp ? 1 : 0) && seq_len > 0, "block {} of {} for {} tokens", layer,
          m.num_layers, seq_len);
  BlockConfig block;
  block.attention = LatentConfig{.hidden = m.hidden_size,
                                 .heads = m.num_heads,
                                 .q_lora = m.q_lora,
                                 .kv_lora = m.kv_lora,
                                 .nope_dim = m.nope_dim,
                                 .rope_dim = m.head_dim,
                                 .v_dim = m.v_dim,
                                 .seq_len = seq_len,
                                 .scale_factor = m.mla_scale};
  block.norm_eps = m.norm_eps;
  block.init_std = m.init_std;
  if (!m.has_experts(layer)) {
    block.mlp_ffn = m.ffn;
    return block;
  }
  block.moe = {.hidden = m.hidden_size,
               .ffn = m.moe_ffn,
               .num_experts = m.num_experts,
               .top_k = m.top_k,
               .seq_len = seq_len,
               .router = RouterKind::sigmoid_topk,
               .gate = {.num_experts = m.num_experts, .top_k = m.top_k},
               .sigmoid = m.sigmoid};
  block.mlp_ffn = m.shared_experts * m.moe_ffn;
  return block;
}

// 6 L 0.5 S^2 n (dn + dr + dv) + 6 S L [D ql + ql n (dn + dr) + D dr + D kvl + kvl n (dn + dv) + dv n D]
// + 6 S 3 D (dense layers' and experts' widths) + 6 S D V; without a query latent D n (dn + dr) for its two products.
// The extra layer is one more with experts, its projection 2 D x D and the head once more.
double flops_per_sequence(const ModelConfig& m, int64_t seq_len) {
  const auto real = [](int64_t v) { return static_cast<double>(v); };
  const double S = real(seq_len), D = real(m.hidden_size), n = real(m.num_heads), L = real(m.num_layers);
  const double dn = real(m.nope_dim), dr = real(m.head_dim), dv = real(m.v_dim);
  const double ql = real(m.q_lora), kvl = real(m.kv_lora);
  const double scores = 0.5 * S * S * n * (dn + dr + dv);
  const double queries = m.q_lora > 0 ? D * ql + ql * n * (dn + dr) : D * n * (dn + dr);
  const double projections = S * (queries + D * dr + D * kvl + kvl * n * (dn + dv) + dv * n * D);
  const double dense = real(m.dense_layers), experts = real((m.shared_experts + m.top_k) * m.moe_ffn);
  const double mlps = S * 3 * D * (dense * real(m.ffn) + (L - dense) * experts);
  const double head = S * D * real(m.vocab_size);
  const double extra = m.mtp ? S * 2 * D * D + scores + projections + S * 3 * D * experts + head : 0;
  return 6 * (L * (scores + projections) + mlps + head + extra);
}

std::vector<HubTensor> tensors(const ModelConfig& m) {
  HubTensorList list(m);
  const auto expert_layer = [&](int64_t layer) {
    list.latent_attention(layer);
    list.router(layer, "mlp.gate", /*bias=*/false, /*selection_bias=*/true);
    list.experts(layer);
    if (m.shared_experts > 0) list.mlp(layer, "mlp.shared_experts.", m.shared_experts * m.moe_ffn);
  };
  list.embedding();
  for (int64_t layer = 0; layer < m.dense_layers; ++layer) {
    list.latent_attention(layer);
    list.mlp(layer, "mlp.", m.ffn);
  }
  for (int64_t layer = m.dense_layers; layer < m.num_layers; ++layer) expert_layer(layer);
  list.head();
  if (m.mtp) {
    list.extra_layer(m.num_layers);
    expert_layer(m.num_layers);
  }
  return list.take();
}

constexpr Family family_named(std::string_view model_type) {
  return {.model_type = model_type,
          .experts_key = "n_routed_experts",
          .expert_width_key = "moe_intermediate_size",
          .ignores = ignored_fields_of_family,
          .parse = &parse,
          .block = &block,
          .flops_per_sequence = &flops_per_sequence,
          .tensors = &tensors};
}

}  // namespace

const Family& deepseek_v3() {
  static constexpr Family family = family_named("deepseek_v3");
  return family;
}

const Family& kimi_k2() {
  static constexpr Family family = family_named("kimi_k2");
  return family;
}

}  // namespace sluice
