#include "model/cards.h"

#include <fmt/format.h>

#include <array>
#include <filesystem>

#include "base/error.h"
#include "base/text.h"

namespace sluice {
namespace {

struct Card {
  std::string_view id;
  std::string_view json;  // the config.json of the hub
};

constexpr auto cards = std::to_array<Card>({
    {"Qwen/Qwen3-30B-A3B", R"({
  "architectures": ["Qwen3MoeForCausalLM"],
  "attention_bias": false,
  "attention_dropout": 0.0,
  "bos_token_id": 151643,
  "decoder_sparse_step": 1,
  "eos_token_id": 151645,
  "head_dim": 128,
  "hidden_act": "silu",
  "hidden_size": 2048,
  "initializer_range": 0.02,
  "intermediate_size": 6144,
  "max_position_embeddings": 40960,
  "max_window_layers": 48,
  "mlp_only_layers": [],
  "model_type": "qwen3_moe",
  "moe_intermediate_size": 768,
  "norm_topk_prob": true,
  "num_attention_heads": 32,
  "num_experts": 128,
  "num_experts_per_tok": 8,
  "num_hidden_layers": 48,
  "num_key_value_heads": 4,
  "output_router_logits": false,
  "rms_norm_eps": 1e-06,
  "rope_scaling": null,
  "rope_theta": 1000000.0,
  "router_aux_loss_coef": 0.001,
  "sliding_window": null,
  "tie_word_embeddings": false,
  "torch_dtype": "bfloat16",
  "transformers_version": "4.51.0",
  "use_cache": true,
  "use_sliding_window": false,
  "vocab_size": 151936
})"},
});

// The last part of an id or a path.
std::string last_part(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

HfConfig base_config(std::string_view id) {
  if (id.empty()) return HfConfig("model.config");
  for (const Card& card : cards) {
    if (card.id == id) return HfConfig::parse(card.json, fmt::format("built-in card {}", id));
  }
  std::error_code ignored;
  if (std::filesystem::is_directory(id, ignored)) return HfConfig::load(id);
  const std::vector<std::string> known = card_ids();
  const std::string near = nearest(id, known);
  const std::string guess = near.empty() ? "" : fmt::format("did you mean {}? ", near);
  throw user_error("{} is neither a model with a built-in card nor a directory", to_text(std::string(id)))
      .advise(fmt::format("{}built-in cards: {}; any other model: a directory with its config.json", guess,
                          fmt::join(known, ", ")));
}

}  // namespace

std::vector<std::string> card_ids() {
  std::vector<std::string> ids;
  for (const Card& card : cards) ids.emplace_back(card.id);
  return ids;
}

HfConfig load_hf_config(std::string_view id_or_directory, std::span<const HfOverride> overrides) {
  HfConfig config = base_config(id_or_directory);
  for (const HfOverride& change : overrides) config.override_with(change);
  return config;
}

ModelConfig load_model(std::string_view id_or_directory, std::span<const HfOverride> overrides) {
  ModelConfig model = make_model(load_hf_config(id_or_directory, overrides));
  if (!id_or_directory.empty()) {
    model.hub_id = id_or_directory;
    model.name = last_part(id_or_directory);
  }
  return model;
}

}  // namespace sluice
