#include "model/scale.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "model/cards.h"

namespace sluice {
namespace {

ModelConfig published() {
  return load_model("Qwen/Qwen3-30B-A3B");
}

TEST(Scale, Words) {
  EXPECT_EQ(parse_scale("laptop"), Scale::laptop);
  EXPECT_EQ(parse_scale("tiny"), Scale::tiny);
  EXPECT_THROW(parse_scale("huge", "--scale"), Error);
}

TEST(Scale, LaptopFollowsItsRule) {
  const ScaledModel scaled = scale_model(published(), 4096, Scale::laptop, {.ep = 8});
  const ModelConfig& m = scaled.model;
  EXPECT_EQ(m.hidden_size, 256);
  EXPECT_EQ(m.head_dim, 64);
  EXPECT_EQ(m.num_heads, 8);
  EXPECT_EQ(m.num_kv_heads, 1);
  EXPECT_EQ(m.moe_ffn, 96);
  EXPECT_EQ(m.num_experts, 32);
  EXPECT_EQ(m.top_k, 2);
  EXPECT_EQ(m.num_layers, 4);
  EXPECT_EQ(m.vocab_size, 4096);
  EXPECT_EQ(scaled.seq_len, 512);
  EXPECT_EQ(m.hub_id, published().hub_id);

  const int64_t parameters = param_count(m).total;
  EXPECT_GE(parameters, 5'000'000);
  EXPECT_LE(parameters, 20'000'000);
  // Seven steps of eight micro-batches take some 10 s at 150 GFLOP/s, with room for what is not a matrix product.
  EXPECT_LE(model_flops_per_sequence(m, 512) * 8 * 7 / 150e9, 6.0);
}

TEST(Scale, TinyFollowsItsRule) {
  const ScaledModel scaled = scale_model(published(), 4096, Scale::tiny, {.ep = 8});
  const ModelConfig& m = scaled.model;
  EXPECT_EQ(m.hidden_size, 32);
  EXPECT_EQ(m.head_dim, 8);
  EXPECT_EQ(m.num_heads, 8);
  EXPECT_EQ(m.num_kv_heads, 1);
  EXPECT_EQ(m.moe_ffn, 12);
  EXPECT_EQ(m.num_experts, 32);
  EXPECT_EQ(m.top_k, 2);
  EXPECT_EQ(m.num_layers, 2);
  EXPECT_EQ(m.vocab_size, 256);
  EXPECT_EQ(scaled.seq_len, 64);
  EXPECT_LT(param_count(m).total, 200'000);
}

TEST(Scale, LayersFollowTheStages) {
  EXPECT_EQ(scale_model(published(), 4096, Scale::laptop, {.min_layers = 32}).model.num_layers, 32);
  EXPECT_EQ(scale_model(published(), 4096, Scale::laptop, {.min_layers = 100}).model.num_layers, 48);
  EXPECT_EQ(scale_model(published(), 4096, Scale::tiny, {.min_layers = 4}).model.num_layers, 4);
  EXPECT_LT(param_count(scale_model(published(), 4096, Scale::tiny, {.min_layers = 4}).model).total, 200'000);
}

TEST(Scale, EveryRankOfTheRowOwnsExperts) {
  for (const int64_t ep : {1, 2, 4, 8, 16, 32, 64, 128}) {
    for (const Scale scale : {Scale::laptop, Scale::tiny}) {
      const ModelConfig m = scale_model(published(), 4096, scale, {.ep = ep}).model;
      EXPECT_EQ(m.num_experts % ep, 0) << ep;
      EXPECT_GE(m.num_experts, 32) << ep;
      EXPECT_GE(m.top_k, 2) << ep;
    }
  }
}

TEST(Scale, ChangesAreWhatDiffers) {
  const ModelConfig before = published();
  const ScaledModel scaled = scale_model(before, 4096, Scale::laptop, {.ep = 8});
  ASSERT_EQ(scaled.changes.size(), 10u);
  EXPECT_EQ(scaled.changes.front().key, "hidden_size");
  EXPECT_EQ(scaled.changes.back().key, "seq_len");
  // Laid over the card, the changes give the same model: the keys are those of config.json.
  std::vector<HfOverride> overrides;
  for (const ScaleChange& change : scaled.changes) {
    EXPECT_FALSE(change.reason.empty());
    EXPECT_LT(change.new_value, change.old_value) << change.key;
    if (change.key != "seq_len") overrides.push_back({change.key, std::to_string(change.new_value), "scale"});
  }
  EXPECT_EQ(load_model(before.hub_id, overrides), scaled.model);
  // What is small enough stays.
  const ScaledModel again = scale_model(scaled.model, scaled.seq_len, Scale::laptop, {.ep = 8});
  EXPECT_TRUE(again.changes.empty());
  EXPECT_EQ(again.model, scaled.model);
}

// Laid over the card, the changes of every published model give the scaled one.
TEST(Scale, ChangesLaidOverEveryCardGiveItsModel) {
  for (const std::string& id : card_ids()) {
    for (const Scale scale : {Scale::laptop, Scale::tiny}) {
      SCOPED_TRACE(id);
      const ModelConfig card = load_model(id);
      const ScaledModel scaled = scale_model(card, 4096, scale, {.ep = 8});
      std::vector<HfOverride> overrides;
      for (const ScaleChange& change : scaled.changes) {
        EXPECT_LT(change.new_value, change.old_value) << change.key;
        if (change.key != "seq_len") overrides.push_back({change.key, std::to_string(change.new_value), "scale"});
      }
      ModelConfig model = load_model(id, overrides);
      EXPECT_EQ(model.rope_scaling.factor, card.rope_scaling.factor);
      model.rope_scaling = scaled.model.rope_scaling;
      EXPECT_EQ(model, scaled.model);
      const int64_t most = scale == Scale::laptop ? 60'000'000 : 500'000;
      EXPECT_LE(param_count(model).total, most);
      EXPECT_LE(model_flops_per_sequence(model, scaled.seq_len) * 8 * 7 / 150e9, 10.0) << "seconds of seven steps";
    }
  }
}

TEST(Scale, DeepSeekV3FollowsItsRule) {
  const ModelConfig card = load_model("deepseek-ai/DeepSeek-V3");
  const ModelConfig m = scale_model(card, 4096, Scale::laptop, {.ep = 64}).model;
  EXPECT_EQ(m.hidden_size, 256);
  EXPECT_EQ(m.q_lora, 56);
  EXPECT_EQ(m.kv_lora, 16);
  EXPECT_EQ(m.nope_dim, 64);
  EXPECT_EQ(m.head_dim, 32);
  EXPECT_EQ(m.v_dim, 64);
  EXPECT_EQ(m.num_heads, 9);
  EXPECT_EQ(m.num_kv_heads, 9);
  EXPECT_EQ(m.moe_ffn, 64);
  EXPECT_EQ(m.ffn, 672);
  EXPECT_EQ(m.num_experts, 64);
  EXPECT_EQ(m.top_k, 2);
  EXPECT_EQ(m.sigmoid, card.sigmoid);
  EXPECT_EQ(m.shared_experts, 1);
  EXPECT_EQ(m.dense_layers, 1);
  EXPECT_EQ(m.num_layers, 4);
}

TEST(Scale, GptOssFollowsItsRule) {
  const ScaledModel scaled = scale_model(load_model("openai/gpt-oss-20b"), 4096, Scale::laptop, {.ep = 8});
  const ModelConfig& m = scaled.model;
  EXPECT_EQ(m.head_dim, 64);
  EXPECT_EQ(m.num_heads, 8);
  EXPECT_EQ(m.num_kv_heads, 1);
  EXPECT_EQ(m.moe_ffn, 256);
  EXPECT_EQ(m.num_experts, 16);
  EXPECT_EQ(m.window, 128);
  EXPECT_EQ(scale_model(load_model("openai/gpt-oss-20b"), 4096, Scale::tiny, {.ep = 8}).model.window, 16);
}

TEST(Scale, ValuesGivenByHandStay) {
  const std::vector<HfOverride> by_hand = {
      {"num_hidden_layers", "6", "a"}, {"num_key_value_heads", "2", "b"}, {"num_experts", "64", "c"}};
  const ModelConfig model = load_model("Qwen/Qwen3-30B-A3B", by_hand);
  const std::vector<std::string> keep = {"num_hidden_layers", "num_key_value_heads", "num_experts", "seq_len"};
  const ScaledModel scaled = scale_model(model, 128, Scale::tiny, {.ep = 8, .min_layers = 1, .keep = keep});
  EXPECT_EQ(scaled.model.num_layers, 6);
  EXPECT_EQ(scaled.model.num_kv_heads, 2);
  EXPECT_EQ(scaled.model.num_heads % 2, 0);
  EXPECT_EQ(scaled.model.num_experts, 64);
  EXPECT_EQ(scaled.model.hidden_size, 32);
  EXPECT_EQ(scaled.seq_len, 128);
}

TEST(Scale, SmallModelsNeverGrow) {
  ModelConfig m = published();
  m.vocab_size = 50;
  m.hidden_size = 24;
  m.num_layers = 1;
  m.num_heads = 2;
  m.num_kv_heads = 2;
  m.head_dim = 4;
  m.num_experts = 2;
  m.top_k = 2;
  m.moe_ffn = 4;
  for (const Scale scale : {Scale::laptop, Scale::tiny}) {
    const ScaledModel scaled = scale_model(m, 16, scale, {.ep = 2, .min_layers = 8});
    EXPECT_TRUE(scaled.changes.empty());
    EXPECT_EQ(scaled.model, m);
    EXPECT_EQ(scaled.seq_len, 16);
  }
}

}  // namespace
}  // namespace sluice
