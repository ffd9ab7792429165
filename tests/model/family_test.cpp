#include "model/family.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "model/cards.h"

namespace sluice {
namespace {

std::vector<HfOverride> tiny_fields() {
  const std::vector<std::pair<std::string, std::string>> fields = {{"model_type", "qwen3_moe"},
                                                                   {"vocab_size", "96"},
                                                                   {"hidden_size", "32"},
                                                                   {"num_hidden_layers", "2"},
                                                                   {"num_attention_heads", "4"},
                                                                   {"num_key_value_heads", "2"},
                                                                   {"head_dim", "8"},
                                                                   {"num_experts", "6"},
                                                                   {"num_experts_per_tok", "3"},
                                                                   {"moe_intermediate_size", "12"},
                                                                   {"norm_topk_prob", "true"}};
  std::vector<HfOverride> overrides;
  for (const auto& [key, text] : fields)
    overrides.push_back({key, text, "model.yaml:" + std::to_string(overrides.size())});
  return overrides;
}

ModelConfig tiny(const std::vector<std::pair<std::string, std::string>>& changes) {
  std::vector<HfOverride> overrides = tiny_fields();
  for (const auto& [key, text] : changes) overrides.push_back({key, text, "--" + key});
  return load_model("", overrides);
}

// Expects a user error whose message, place or hint hold the parts.
void expect_refused(const std::vector<std::pair<std::string, std::string>>& changes, std::vector<std::string> parts) {
  try {
    tiny(changes);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user);
    const std::string text = describe(error);
    for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " not in: " << text;
    return;
  }
  ADD_FAILURE() << "accepted " << changes.front().first << " = " << changes.front().second;
}

TEST(Family, InlineModelNeedsNoCard) {
  const ModelConfig model = tiny({});
  EXPECT_EQ(model.model_type, "qwen3_moe");
  EXPECT_EQ(model.name, "qwen3_moe");
  EXPECT_EQ(model.hub_id, "");
  EXPECT_EQ(model.num_kv_heads, 2);
  EXPECT_EQ(model.rope_theta, 1e4);
  EXPECT_EQ(model.aux_loss_coef, 0.001);
  EXPECT_TRUE(model.qk_norm);
}

TEST(Family, UnknownFamilyListsThoseThereAre) {
  expect_refused({{"model_type", "mamba"}}, {"\"mamba\"", "llama", "qwen3_moe", "--model_type"});
  EXPECT_THROW(load_model("", {}), Error);
}

TEST(Family, UnknownOverrideGetsItsNearestMatch) {
  expect_refused({{"num_expert_per_tok", "2"}},
                 {"model.config.num_expert_per_tok", "num_experts_per_tok", "--num_exp"});
  expect_refused({{"zebra", "2"}}, {"it reads:", "hidden_size"});
  EXPECT_NO_THROW(tiny({{"torch_dtype", "bfloat16"}, {"architectures", "[\"X\"]"}, {"max_window_layers", "3"}}));
}

TEST(Family, ImpossibleValuesNameKeyValueAndPlace) {
  expect_refused({{"num_attention_heads", "5"}}, {"num_attention_heads 5", "num_key_value_heads 2", "--num_attention"});
  expect_refused({{"num_experts_per_tok", "7"}}, {"num_experts_per_tok 7", "num_experts 6", "--num_experts_per_tok"});
  expect_refused({{"head_dim", "7"}}, {"head_dim is 7", "--head_dim"});
  expect_refused({{"hidden_size", "0"}}, {"hidden_size is 0", "--hidden_size"});
  expect_refused({{"hidden_size", "-4"}}, {"hidden_size is -4"});
  expect_refused({{"hidden_size", "many"}}, {"hidden_size is \"many\"", "not an integer"});
  expect_refused({{"hidden_size", "null"}}, {"lacks hidden_size"});
  expect_refused({{"vocab_size", "99999999999999"}}, {"vocab_size is 99999999999999"});
  expect_refused({{"rms_norm_eps", "0"}}, {"rms_norm_eps is 0"});
  expect_refused({{"head_dim", "null"}, {"num_attention_heads", "6"}},
                 {"6 does not divide hidden_size 32", "head_dim"});
}

TEST(Family, ProductsOfSizesAreBounded) {
  expect_refused({{"num_hidden_layers", "4096"}, {"num_experts", "16384"}}, {"experts in all"});
  expect_refused({{"num_hidden_layers", "4096"},
                  {"num_experts", "256"},
                  {"hidden_size", "1048576"},
                  {"moe_intermediate_size", "1048576"}},
                 {"parameters", "at most"});
}

TEST(Family, WhatTheFamilyCannotBeIsRefused) {
  expect_refused({{"hidden_act", "gelu"}}, {"hidden_act \"gelu\""});
  expect_refused({{"attention_dropout", "0.1"}}, {"attention_dropout 0.1"});
  expect_refused({{"decoder_sparse_step", "3"}}, {"none of 2 layers has experts", "--decoder_sparse_step"});
  expect_refused({{"mlp_only_layers", "[1, 0]"}}, {"none of 2 layers has experts", "--mlp_only_layers"});
  expect_refused({{"mlp_only_layers", "3"}}, {"mlp_only_layers 3", "a list"});
  expect_refused({{"use_sliding_window", "true"}}, {"use_sliding_window true"});
  EXPECT_NO_THROW(tiny({{"mlp_only_layers", "[]"}, {"sliding_window", "4096"}}));
}

TEST(Family, BothSpellingsOfRotarySettings) {
  EXPECT_EQ(tiny({{"rope_theta", "5e4"}}).rope_theta, 5e4);
  EXPECT_EQ(tiny({{"rope_parameters.rope_theta", "5e4"}}).rope_theta, 5e4);
  EXPECT_EQ(tiny({{"rope_parameters", R"({"rope_theta": 70000, "rope_type": "default"})"}}).rope_theta, 70000);
  EXPECT_EQ(tiny({{"rope_scaling", R"({"type": "default"})"}, {"rope_theta", "5"}}).rope_theta, 5);
  EXPECT_EQ(tiny({{"rope_theta", "70000"}, {"rope_parameters", R"({"rope_theta": 7e4})"}}).rope_theta, 70000);
  expect_refused({{"rope_theta", "1"}, {"rope_parameters", R"({"rope_theta": 2})"}}, {"mean the same"});
  expect_refused({{"rope_scaling", R"({"rope_type": "longrope", "factor": 4})"}}, {"\"longrope\"", "--rope_scaling"});
  expect_refused({{"rope_scaling", R"({"factor": 4})"}}, {"rope_scaling.factor"});
  expect_refused({{"rope_theta", "0"}}, {"rope_theta is 0"});
}

TEST(Family, NewerSpellingOfTheNumberOfExperts) {
  EXPECT_EQ(tiny({{"num_experts", "null"}, {"num_local_experts", "12"}}).num_experts, 12);
  expect_refused({{"num_local_experts", "12"}}, {"num_experts is 6", "num_local_experts is 12"});
}

// A qwen3_moe's config.json with more fields, which begin in line 2.
HfConfig moe_file(const std::string& more) {
  return HfConfig::parse(
      R"({"model_type": "qwen3_moe", "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 12, "norm_topk_prob": true,
)" + more +
          "}",
      "f");
}

std::vector<std::string> warnings(const HfConfig& config) {
  std::vector<std::string> lines;
  for (const IgnoredHfField& field : unread_fields(config)) lines.push_back(field.key + " " + field.value);
  return lines;
}

TEST(Family, FieldsWithoutEffectAreListed) {
  const auto list = ignored_fields(moe_file(R"("intermediate_size": 9,
    "architectures": ["A"], "strange": 1)"));
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0].key, "architectures.0");
  EXPECT_EQ(list[1].key, "intermediate_size");
  EXPECT_EQ(list[2].key, "strange");
  EXPECT_EQ(list[2].where, "f:3");
  EXPECT_NE(list[2].reason.find("not a field"), std::string::npos);
}

using Lines = std::vector<std::string>;

TEST(Family, ValuesThatNobodyReadsAndThatWouldChangeTheNetworkAreTold) {
  EXPECT_EQ(warnings(moe_file(R"("shared_expert_intermediate_size": 16, "use_qk_norm": false,
"partial_rotary_factor": 0.5)")),
            (Lines{"partial_rotary_factor 0.5", "shared_expert_intermediate_size 16", "use_qk_norm false"}));
  const auto fields = unread_fields(moe_file("\"strange\": 1,\n\"use_qk_norm\": false"));
  ASSERT_EQ(fields.size(), 2U);
  EXPECT_EQ(fields[0].where, "f:2");
  EXPECT_EQ(fields[0].reason, "qwen3_moe does not read it; if it shapes the authors' network, another one is built");
  EXPECT_EQ(fields[1].where, "f:3");
  EXPECT_EQ(fields[1].reason, "qwen3_moe does not read it; the network is built as with use_qk_norm true");
  EXPECT_EQ(warnings(moe_file(R"("is_causal": false, "qkv_bias": true, "first_k_dense_replace": 1,
    "activation_function": "gelu", "norm_eps": 0.5, "embedding_multiplier": 12.0, "attention_sinks": true)")),
            (Lines{"activation_function \"gelu\"", "attention_sinks true", "embedding_multiplier 12",
                   "first_k_dense_replace 1", "is_causal false", "norm_eps 0.5", "qkv_bias true"}));
  // What stands below one key is told once.
  EXPECT_EQ(warnings(moe_file(R"("vision_config": {"depth": 3, "width": {"a": 7}}, "list": [0, 5, 6])")),
            (Lines{"list.1 5", "vision_config.depth 3"}));
  EXPECT_EQ(warnings(moe_file(R"("layer_types": ["full_attention", "sliding_attention"])")),
            (Lines{"layer_types.1 \"sliding_attention\""}));
}

TEST(Family, ValuesThatChangeNothingAreNotTold) {
  EXPECT_EQ(warnings(moe_file(R"("a": null, "b": false, "c": 0, "d": 0.0, "e": "", "f": [], "g": {}, "h": {"i": 0},
    "use_qk_norm": true, "partial_rotary_factor": 1.0, "rotary_pct": 1, "shared_expert_intermediate_size": 0,
    "use_qkv_bias": false, "hidden_dropout": 0.0, "activation_function": "SiLU", "position_embedding_type": "rotary",
    "decoder_sparse_step": 1, "num_local_experts": 6, "experts_per_token": 3, "moe_topk": 3, "norm_epsilon": 1e-6,
    "layer_types": ["full_attention", "full_attention"], "multi_query": false, "norm_type": "rms_norm",
    "architectures": ["A"], "transformers_version": "4.51.0", "torch_dtype": "bfloat16", "bos_token_id": 7,
    "temperature": 0.7, "top_k": 50, "id2label": {"0": "A"}, "_attn_implementation": "sdpa", "max_length": 20,
    "initializer_range": 0.02, "sliding_window": 4096, "max_window_layers": 28, "tie_word_embeddings": false,
    "quantization_config": {"quant_method": "fp8"}, "auto_map": {"AutoModel": "x"}, "output_router_logits": true,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 1.0})")),
            Lines{});
  for (const std::string& id : card_ids()) EXPECT_EQ(warnings(load_hf_config(id)), Lines{}) << id;
}

// GPT-OSS has biases, sinks and a window, which Qwen3 has not.
TEST(Family, SwitchesAreComparedWithTheFamilysOwnNetwork) {
  const auto changed = [](const std::string& value) {
    std::string json = R"({"model_type": "gpt_oss", "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2,
      "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 6, "num_experts_per_tok": 3,
      "intermediate_size": 12, "rope_scaling": {"rope_type": "default"}, "sliding_window": 16)";
    for (const char* const key : {"qkv_bias", "attention_sinks", "use_sliding_window", "use_qk_norm"}) {
      json += std::string(", \"") + key + "\": " + value;
    }
    return warnings(HfConfig::parse(json + "}", "f"));
  };
  EXPECT_EQ(changed("true"), (Lines{"use_qk_norm true"}));
  EXPECT_EQ(changed("false"), (Lines{"attention_sinks false", "qkv_bias false", "use_sliding_window false"}));
}

// Both names of one field are read, also where one of them is dropped.
TEST(Family, OtherSpellingsCountAsRead) {
  EXPECT_EQ(warnings(moe_file(R"("original_max_position_embeddings": 4096)")), Lines{});
  EXPECT_EQ(
      warnings(moe_file(
          R"("num_local_experts": 6, "rope_theta": 5e4, "rope_scaling": {"rope_theta": 50000}, "rope_parameters": {"rope_theta": 5e4})")),
      Lines{});
}

TEST(Family, AMisspeltFieldIsMetWhereOneIsMissed) {
  expect_refused({{"hidden_size", "null"}, {"hiden_size", "32"}},
                 {"lacks hidden_size", "--hiden_size", "did you mean model.config.hidden_size"});
  expect_refused({{"rope_parameters", R"({"partial_rotary_factor": 0.5})"}},
                 {"rope_parameters.partial_rotary_factor 0.5", "all columns of a head"});
}

}  // namespace
}  // namespace sluice
