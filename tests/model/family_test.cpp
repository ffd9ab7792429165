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
  expect_refused({{"tie_word_embeddings", "true"}}, {"tie_word_embeddings true", "tied", "--tie_word"});
  expect_refused({{"norm_topk_prob", "false"}}, {"norm_topk_prob false"});
  expect_refused({{"hidden_act", "gelu"}}, {"hidden_act \"gelu\""});
  expect_refused({{"attention_bias", "true"}}, {"attention_bias true"});
  expect_refused({{"attention_dropout", "0.1"}}, {"attention_dropout 0.1"});
  expect_refused({{"decoder_sparse_step", "2"}}, {"decoder_sparse_step 2"});
  expect_refused({{"mlp_only_layers", "[0]"}}, {"mlp_only_layers", "dense"});
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
  expect_refused({{"rope_scaling", R"({"rope_type": "llama3", "factor": 4})"}}, {"\"llama3\"", "--rope_scaling"});
  expect_refused({{"rope_scaling", R"({"factor": 4})"}}, {"rope_scaling.factor"});
  expect_refused({{"rope_theta", "0"}}, {"rope_theta is 0"});
}

TEST(Family, NewerSpellingOfTheNumberOfExperts) {
  EXPECT_EQ(tiny({{"num_experts", "null"}, {"num_local_experts", "12"}}).num_experts, 12);
  expect_refused({{"num_local_experts", "12"}}, {"num_experts is 6", "num_local_experts is 12"});
}

TEST(Family, FieldsWithoutEffectAreListed) {
  const std::vector<HfOverride> none;
  HfConfig config = HfConfig::parse(R"({"model_type": "qwen3_moe", "intermediate_size": 9,
    "architectures": ["A"], "strange": 1, "hidden_size": 4})",
                                    "f");
  const auto list = ignored_fields(config);
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0].key, "architectures.0");
  EXPECT_EQ(list[1].key, "intermediate_size");
  EXPECT_EQ(list[2].key, "strange");
  EXPECT_EQ(list[2].where, "f:2");
  EXPECT_NE(list[2].reason.find("not a field"), std::string::npos);
}

}  // namespace
}  // namespace sluice
