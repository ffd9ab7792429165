#include "model/unread_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <set>
#include <span>

namespace sluice {
namespace {

// Fields of any Hugging Face configuration that say nothing about the network.
constexpr auto harmless = std::to_array<IgnoredField>({
    {"_name_or_path", "a label"},
    {"architectures", "model_type decides"},
    {"auto_map", "no Python is run"},
    {"bos_token_id", "a matter of the tokenizer"},
    {"chunk_size_feed_forward", "a setting of Python modules"},
    {"dtype", "runtime.dtype decides"},
    {"eos_token_id", "a matter of the tokenizer"},
    {"id2label", "a label"},
    {"label2id", "a label"},
    {"output_attentions", "a setting of Python modules"},
    {"output_hidden_states", "a setting of Python modules"},
    {"pad_token_id", "a matter of the tokenizer"},
    {"pretraining_tp", "a setting of Python modules"},
    {"quantization_config", "how stored weights are packed, not the network"},
    {"return_dict", "a setting of Python modules"},
    {"torch_dtype", "runtime.dtype decides"},
    {"transformers_version", "a label"},
    {"use_cache", "a setting of generation"},
});

// Such fields that older and other programs write; nobody has a reason to lay them over a file.
constexpr std::string_view label = "a label", python = "a setting of Python modules",
                           tokenizer = "a matter of the tokenizer", generation = "a setting of generation";
constexpr auto harmless_in_files = std::to_array<IgnoredField>({
    {"_attn_implementation", python},
    {"_attn_implementation_autoset", python},
    {"_attn_implementation_internal", python},
    {"_commit_hash", label},
    {"attn_implementation", python},
    {"bad_words_ids", generation},
    {"begin_suppress_tokens", generation},
    {"cls_token_id", tokenizer},
    {"decoder_start_token_id", tokenizer},
    {"diversity_penalty", generation},
    {"do_sample", generation},
    {"early_stopping", generation},
    {"encoder_no_repeat_ngram_size", generation},
    {"exponential_decay_length_penalty", generation},
    {"finetuning_task", label},
    {"forced_bos_token_id", generation},
    {"forced_eos_token_id", generation},
    {"fused_mlp", python},
    {"fused_qkv", python},
    {"gradient_checkpointing", python},
    {"is_decoder", python},
    {"keys_to_ignore_at_inference", python},
    {"length_penalty", generation},
    {"mask_token_id", tokenizer},
    {"max_length", generation},
    {"max_new_tokens", generation},
    {"min_length", generation},
    {"model_name", label},
    {"name", label},
    {"no_repeat_ngram_size", generation},
    {"num_beam_groups", generation},
    {"num_beams", generation},
    {"num_labels", label},
    {"num_return_sequences", generation},
    {"output_router_logits", python},
    {"output_scores", generation},
    {"prefix", label},
    {"problem_type", label},
    {"pruned_heads", python},
    {"remove_invalid_values", generation},
    {"repetition_penalty", generation},
    {"return_dict_in_generate", generation},
    {"sep_token_id", tokenizer},
    {"suppress_tokens", generation},
    {"task_specific_params", generation},
    {"temperature", generation},
    {"tf_legacy_loss", python},
    {"tokenizer_class", tokenizer},
    {"top_k", generation},
    {"top_p", generation},
    {"torchscript", python},
    {"transformers.js_config", python},
    {"typical_p", generation},
    {"unk_token_id", tokenizer},
    {"unsloth_fixed", label},
    {"unsloth_version", label},
    {"use_bfloat16", "runtime.dtype decides"},
    {"use_flash_attention", python},
    {"use_flash_attn", python},
});

// A switch or size that other families read under this name, and its value for the network that is built; null where
// the name means nothing for it. A name may have several values that mean the same.
struct Fact {
  std::string_view key;
  HfValue (*value)(const ModelConfig&);
};

// Whether a layer has a tensor of this ending.
bool stores(const ModelConfig& m, std::string_view ending) {
  return std::ranges::any_of(family_of(m).tensors(m),
                             [&](const HubTensor& tensor) { return tensor.hub_name.ends_with(ending); });
}

constexpr auto yes = [](const ModelConfig&) -> HfValue { return true; };
constexpr auto one = [](const ModelConfig&) -> HfValue { return int64_t{1}; };
constexpr auto silu = [](const ModelConfig&) -> HfValue { return std::string("silu"); };
constexpr auto rms = [](const ModelConfig&) -> HfValue { return std::string("rmsnorm"); };
constexpr auto qk_norm = [](const ModelConfig& m) -> HfValue { return m.qk_norm; };
constexpr auto biases = [](const ModelConfig& m) -> HfValue { return stores(m, ".self_attn.q_proj.bias"); };
constexpr auto sinks = [](const ModelConfig& m) -> HfValue { return stores(m, ".self_attn.sinks"); };
constexpr auto interleaved = [](const ModelConfig& m) -> HfValue { return m.kv_lora > 0; };
constexpr auto norm_eps = [](const ModelConfig& m) -> HfValue { return m.norm_eps; };
constexpr auto kv_heads = [](const ModelConfig& m) -> HfValue { return m.num_kv_heads; };
constexpr auto one_kv_head = [](const ModelConfig& m) -> HfValue { return m.num_kv_heads == 1; };
constexpr auto window = [](const ModelConfig& m) -> HfValue { return m.window; };
constexpr auto slides = [](const ModelConfig& m) -> HfValue { return m.window > 0; };
constexpr auto experts = [](const ModelConfig& m) -> HfValue { return m.num_experts; };
constexpr auto top_k = [](const ModelConfig& m) -> HfValue { return m.top_k; };
constexpr auto shared_experts = [](const ModelConfig& m) -> HfValue { return m.shared_experts; };
constexpr auto layers = [](const ModelConfig& m) -> HfValue { return m.num_layers; };
constexpr auto hidden = [](const ModelConfig& m) -> HfValue { return m.hidden_size; };
constexpr auto heads = [](const ModelConfig& m) -> HfValue { return m.num_heads; };
constexpr auto positions = [](const ModelConfig& m) -> HfValue { return m.max_positions; };
constexpr auto dense_layers = [](const ModelConfig& m) -> HfValue { return m.dense_layers; };
// Of models with experts.
constexpr auto renormalized = [](const ModelConfig& m) -> HfValue {
  return m.num_experts > 0 ? HfValue(m.sigmoid.normalize && m.renormalize) : HfValue();
};
constexpr auto every_layer = [](const ModelConfig& m) -> HfValue {
  return m.num_experts > 0 ? HfValue(m.sparse_step) : HfValue();
};
constexpr auto scoring = [](const ModelConfig& m) -> HfValue {
  if (m.num_experts == 0) return {};
  const RouterKind router = family_of(m).block(m, m.num_layers - 1, 1).moe.router;
  return std::string(router == RouterKind::sigmoid_topk ? "sigmoid" : "softmax");
};

constexpr auto facts = std::to_array<Fact>({
    {"use_qk_norm", qk_norm},
    {"qk_norm", qk_norm},
    {"use_qk_layernorm", qk_norm},
    {"qk_layernorm", qk_norm},
    {"partial_rotary_factor", one},
    {"rotary_pct", one},
    {"rotary_percent", one},
    {"use_rope", yes},
    {"rope", yes},
    {"position_embedding_type", [](const ModelConfig&) -> HfValue { return std::string("rope"); }},
    {"position_embedding_type", [](const ModelConfig&) -> HfValue { return std::string("rotary"); }},
    {"rope_interleave", interleaved},
    {"rope_interleaved", interleaved},
    {"rotary_interleaved", interleaved},
    {"qkv_bias", biases},
    {"use_qkv_bias", biases},
    {"attention_out_bias", biases},
    {"use_bias", biases},
    {"bias", biases},
    {"add_qkv_bias", biases},
    {"attention_sinks", sinks},
    {"use_attention_sinks", sinks},
    {"is_causal", yes},
    {"causal", yes},
    {"use_causal_mask", yes},
    {"n_layer", layers},
    {"n_layers", layers},
    {"num_layers", layers},
    {"d_model", hidden},
    {"dim", hidden},
    {"n_embd", hidden},
    {"n_head", heads},
    {"n_heads", heads},
    {"num_heads", heads},
    {"n_ctx", positions},
    {"n_positions", positions},
    {"max_seq_len", positions},
    {"v_head_dim", [](const ModelConfig& m) -> HfValue { return m.kv_lora > 0 ? m.v_dim : m.head_dim; }},
    {"n_kv_heads", kv_heads},
    {"num_kv_heads", kv_heads},
    {"multi_query", one_kv_head},
    {"multi_query_attention", one_kv_head},
    {"sliding_window", window},
    {"use_sliding_window", slides},
    {"use_rms_norm", yes},
    {"use_rmsnorm", yes},
    {"rmsnorm", yes},
    {"norm_type", rms},
    {"norm_type", [](const ModelConfig&) -> HfValue { return std::string("rms_norm"); }},
    {"normalization", rms},
    {"layer_norm_eps", norm_eps},
    {"layer_norm_epsilon", norm_eps},
    {"norm_eps", norm_eps},
    {"norm_epsilon", norm_eps},
    {"activation_function", silu},
    {"hidden_activation", silu},
    {"activation", silu},
    {"num_experts", experts},
    {"num_local_experts", experts},
    {"n_routed_experts", experts},
    {"moe_num_experts", experts},
    {"num_experts_per_tok", top_k},
    {"num_experts_per_token", top_k},
    {"experts_per_token", top_k},
    {"moe_top_k", top_k},
    {"moe_topk", top_k},
    {"num_selected_experts", top_k},
    {"n_shared_experts", shared_experts},
    {"num_shared_experts", shared_experts},
    {"moe_num_shared_experts", shared_experts},
    {"shared_expert_intermediate_size", [](const ModelConfig& m) -> HfValue { return m.shared_experts * m.moe_ffn; }},
    {"first_k_dense_replace", dense_layers},
    {"num_dense_layers", dense_layers},
    {"moe_layer_freq", every_layer},
    {"decoder_sparse_step", every_layer},
    {"interleave_moe_layer_step", every_layer},
    {"n_group", [](const ModelConfig& m) -> HfValue { return m.sigmoid.groups; }},
    {"topk_group", [](const ModelConfig& m) -> HfValue { return m.sigmoid.top_groups; }},
    {"norm_topk_prob", renormalized},
    {"moe_renormalize", renormalized},
    {"scoring_func", scoring},
    {"routed_scaling_factor", [](const ModelConfig& m) -> HfValue { return m.sigmoid.scale; }},
    {"embedding_multiplier", one},
    {"residual_multiplier", one},
    {"logits_scaling", one},
    {"logit_scale", one},
    {"scale_emb", one},
});

// Whether `key` is `field` or lies below it.
bool covers(std::string_view field, std::string_view key) {
  return key.starts_with(field) && (key.size() == field.size() || key[field.size()] == '.');
}

std::optional<std::string_view> reason_in(std::span<const IgnoredField> list, std::string_view key) {
  for (const IgnoredField& field : list) {
    if (covers(field.key, key)) return field.reason;
  }
  return {};
}

std::optional<double> number(const HfValue& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? 1 : 0;
  if (const auto* whole = std::get_if<int64_t>(&value)) return static_cast<double>(*whole);
  if (const auto* real = std::get_if<double>(&value)) return *real;
  return {};
}

bool same(const HfValue& a, const HfValue& b) {
  const auto *one_text = std::get_if<std::string>(&a), *other = std::get_if<std::string>(&b);
  if (one_text != nullptr && other != nullptr) {
    return std::ranges::equal(*one_text, *other,
                              [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
  }
  return number(a) && number(a) == number(b);
}

bool says_nothing(const HfValue& value) {
  const auto* text = std::get_if<std::string>(&value);
  return std::holds_alternative<std::monostate>(value) || (text != nullptr && text->empty()) || number(value) == 0;
}

// What the network that is built has under this name; null where no such name is known.
HfValue fact(const ModelConfig& model, std::string_view key, const HfValue& stated) {
  HfValue value;
  for (const Fact& known : facts) {
    if (known.key != key) continue;
    value = known.value(model);
    if (same(value, stated)) break;
  }
  return value;
}

// Layers by kind, of families that do not read them.
bool is_full_attention(const ModelConfig& model, std::string_view key, const HfValue& value) {
  const auto* kind = std::get_if<std::string>(&value);
  return model.window == 0 && key.starts_with("layer_types.") && kind != nullptr && *kind == "full_attention";
}

std::string_view top_of(std::string_view key) {
  return key.substr(0, key.find('.'));
}

}  // namespace

std::optional<std::string_view> reason_to_ignore(const Family& family, std::string_view key, bool overridden) {
  for (const std::span<const IgnoredField> list : {family.ignores, std::span<const IgnoredField>(harmless)}) {
    if (const auto reason = reason_in(list, key)) return reason;
  }
  return overridden ? std::nullopt : reason_in(harmless_in_files, key);
}

std::vector<IgnoredHfField> ignored_fields(const HfConfig& config) {
  const Family& family = family_of(make_model(config));
  std::vector<IgnoredHfField> list;
  for (const auto& [key, field] : config.fields()) {
    if (config.was_read(key)) continue;
    const std::optional<std::string_view> reason = reason_to_ignore(family, key, field.overridden);
    list.push_back({key, field.where, to_text(field.value),
                    reason ? std::string(*reason) : fmt::format("not a field of {}", family.model_type)});
  }
  return list;
}

std::vector<IgnoredHfField> unread_fields(const HfConfig& config) {
  const ModelConfig model = make_model(config);
  const Family& family = family_of(model);
  std::vector<IgnoredHfField> list;
  std::set<std::string_view> told;
  for (const auto& [key, field] : config.fields()) {
    if (config.was_read(key) || reason_to_ignore(family, key, field.overridden)) continue;
    const HfValue here = fact(model, key, field.value);
    const bool known = !std::holds_alternative<std::monostate>(here);
    const bool no_matter = known ? same(here, field.value) : says_nothing(field.value);
    if (no_matter || is_full_attention(model, key, field.value) || !told.insert(top_of(key)).second) continue;
    list.push_back({key, field.where, to_text(field.value),
                    known ? fmt::format("{} does not read it; the network is built as with {} {}", family.model_type,
                                        key, to_text(here))
                          : fmt::format("{} does not read it; if it shapes the authors' network, another one is built",
                                        family.model_type)});
  }
  return list;
}

}  // namespace sluice
