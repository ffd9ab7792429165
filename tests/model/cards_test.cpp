#include "model/cards.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "base/error.h"

namespace sluice {
namespace {

TEST(Cards, Qwen3) {
  const ModelConfig m = load_model("Qwen/Qwen3-30B-A3B");
  EXPECT_EQ(m.model_type, "qwen3_moe");
  EXPECT_EQ(m.name, "Qwen3-30B-A3B");
  EXPECT_EQ(m.hub_id, "Qwen/Qwen3-30B-A3B");
  EXPECT_EQ(m.vocab_size, 151936);
  EXPECT_EQ(m.hidden_size, 2048);
  EXPECT_EQ(m.num_layers, 48);
  EXPECT_EQ(m.num_heads, 32);
  EXPECT_EQ(m.num_kv_heads, 4);
  EXPECT_EQ(m.head_dim, 128);
  EXPECT_EQ(m.num_experts, 128);
  EXPECT_EQ(m.top_k, 8);
  EXPECT_EQ(m.moe_ffn, 768);
  EXPECT_TRUE(m.qk_norm);
  EXPECT_EQ(m.rope_theta, 1e6);
  EXPECT_EQ(m.norm_eps, 1e-6);
  EXPECT_EQ(m.init_std, 0.02);
  EXPECT_EQ(m.max_positions, 40960);
  EXPECT_EQ(m.aux_loss_coef, 0.001);
}

// What the hub says of their weight files.
TEST(Cards, HaveThePublishedNumbersOfParameters) {
  const std::map<std::string, int64_t> published = {{"meta-llama/Meta-Llama-3-8B", 8030261248},
                                                    {"meta-llama/Meta-Llama-3-70B", 70553706496},
                                                    {"meta-llama/Llama-3.1-8B", 8030261248},
                                                    {"meta-llama/Llama-3.1-70B", 70553706496},
                                                    {"meta-llama/Llama-3.1-405B", 405853388800},
                                                    {"meta-llama/Llama-3.2-1B", 1235814400},
                                                    {"meta-llama/Llama-3.2-3B", 3212749824},
                                                    {"Qwen/Qwen3-0.6B", 596049920},
                                                    {"Qwen/Qwen3-1.7B", 1720574976},
                                                    {"Qwen/Qwen3-4B", 4022468096},
                                                    {"Qwen/Qwen3-8B", 8190735360},
                                                    {"Qwen/Qwen3-14B", 14768307200},
                                                    {"Qwen/Qwen3-32B", 32762123264},
                                                    {"Qwen/Qwen3-30B-A3B", 30532122624},
                                                    {"Qwen/Qwen3-235B-A22B", 235093634560},
                                                    {"Qwen/Qwen3-Coder-30B-A3B-Instruct", 30532122624},
                                                    {"Qwen/Qwen3-Coder-480B-A35B-Instruct", 480154875392}};
  for (const auto& [id, parameters] : published) EXPECT_EQ(param_count(load_model(id)).total, parameters) << id;
}

TEST(Cards, EveryCardIsAModelAndEveryFieldKnown) {
  ASSERT_FALSE(card_ids().empty());
  for (const std::string& id : card_ids()) {
    EXPECT_GT(param_count(load_model(id)).total, 0) << id;
    for (const auto& field : ignored_fields(load_hf_config(id))) {
      EXPECT_EQ(field.reason.find("not a field"), std::string::npos) << id << " " << field.key;
    }
  }
}

// Configurations that transformers wrote: nothing in them would make another network.
TEST(Cards, CardsAndGoldensHaveNothingUnread) {
  size_t goldens = 0;
  for (const std::string& id : card_ids()) EXPECT_TRUE(unread_fields(load_hf_config(id)).empty()) << id;
  for (const auto& entry : std::filesystem::directory_iterator(SLUICE_SOURCE_DIR "/tests/parity/goldens")) {
    if (!std::filesystem::exists(entry.path() / "config.json")) continue;
    for (const IgnoredHfField& field : unread_fields(load_hf_config(entry.path().string())))
      ADD_FAILURE() << field.where << ": " << field.key << " " << field.value << " " << field.reason;
    ++goldens;
  }
  EXPECT_GE(goldens, 7U);
}

TEST(Cards, OverridesChangeACard) {
  const std::vector<HfOverride> overrides = {{"num_hidden_layers", "4", "--model.config.num_hidden_layers"}};
  EXPECT_EQ(load_model("Qwen/Qwen3-30B-A3B", overrides).num_layers, 4);
}

TEST(Cards, UnknownIdListsCardsAndTheOtherWay) {
  try {
    load_model("Qwen/Qwen3-30B-A3");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user);
    EXPECT_NE(error.hint().find("did you mean Qwen/Qwen3-30B-A3B?"), std::string::npos) << error.hint();
    EXPECT_NE(error.hint().find("config.json"), std::string::npos) << error.hint();
  }
}

TEST(Cards, DirectoryWithConfigJson) {
  const auto directory =
      std::filesystem::temp_directory_path() / fmt::format("sluice_cards_{}", ::getpid()) / "my-model";
  std::filesystem::create_directories(directory);
  EXPECT_THROW(load_model(directory.string()), Error);
  std::ofstream(directory / "config.json") << R"({"model_type": "qwen3_moe", "vocab_size": 64, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 4, "norm_topk_prob": true,
    "moe_intermediate_size": 16, "some_new_field": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000000}, "rope_theta": 10000000})";
  const ModelConfig m = load_model(directory.string() + "/");
  EXPECT_EQ(m.name, "my-model");
  EXPECT_EQ(m.head_dim, 8);
  EXPECT_EQ(m.num_kv_heads, 4);
  EXPECT_EQ(m.num_experts, 4);
  EXPECT_EQ(m.rope_theta, 1e7);
  // An override in either spelling beats what the file says in both.
  for (const char* key : {"rope_theta", "rope_parameters.rope_theta"}) {
    const std::vector<HfOverride> overrides = {{key, "123", "here"}};
    EXPECT_EQ(load_model(directory.string(), overrides).rope_theta, 123) << key;
  }
  std::filesystem::remove_all(directory.parent_path());
}

}  // namespace
}  // namespace sluice
