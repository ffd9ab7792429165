// The published models: FLOPs and parameters against the figures of their authors and of the published table.
#include <gtest/gtest.h>

#include <cmath>

#include "model/cards.h"

namespace sluice {
namespace {

struct Published {
  std::string id;
  double gflops_per_token;  // forward and backward at S = 4096
  double parameters;        // in units of 10^9, as its authors round
  double active;            // likewise; 0: not published
  double row_tflops;        // per GPU, of the row below; from its step time
  double sequences_per_gpu_second;
  friend std::ostream& operator<<(std::ostream& out, const Published& published) { return out << published.id; }
};

class PublishedModel : public testing::TestWithParam<Published> {};

TEST_P(PublishedModel, FlopsAndParameters) {
  const Published& published = GetParam();
  const ModelConfig model = load_model(published.id);
  const double per_sequence = model_flops_per_sequence(model, 4096);
  EXPECT_NEAR(per_sequence / 4096 * 1e-9, published.gflops_per_token, 0.0005);
  EXPECT_NEAR(per_sequence * published.sequences_per_gpu_second * 1e-12, published.row_tflops, 0.05);
  const ParamCount count = param_count(model);
  const double rounding = published.parameters > 1000 ? 0.05 : 0.005;
  EXPECT_NEAR(static_cast<double>(count.total) * 1e-9, published.parameters, rounding);
  EXPECT_GT(count.active, count.embedding);
  if (published.active == 0) return;
  EXPECT_NEAR(static_cast<double>(count.active) * 1e-9, published.active, 0.3);
}

INSTANTIATE_TEST_SUITE_P(
    Models, PublishedModel,
    testing::Values(Published{"deepseek-ai/DeepSeek-V3", 249.811, 671.03, 37.5, 250.2, 512 / (8.18 * 256)},
                    Published{"moonshotai/Kimi-K2-Base", 204.477, 1026.4, 0, 189.1, 512 / (8.86 * 256)},
                    Published{"Qwen/Qwen3-30B-A3B", 23.006, 30.53, 3.35, 277.0, 512 / (21.773 * 8)},
                    Published{"openai/gpt-oss-20b", 22.912, 20.91, 0, 299.1, 256 / (10.04 * 8)},
                    Published{"openai/gpt-oss-120b", 32.631, 116.83, 0, 248.7, 512 / (4.30 * 64)}),
    [](const auto& instance) {
      std::string name = load_model(instance.param.id).name;
      std::erase_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
      return name;
    });

// With the layer that predicts the token after the next: 259.992 GFLOP a token, and the 685 B parameters that the hub
// counts, 14 B of them the extra layer with its copies of embedding and head.
TEST(Published, DeepSeekV3WithItsExtraLayer) {
  ModelConfig m = load_model("deepseek-ai/DeepSeek-V3");
  EXPECT_EQ(m.nextn_layers, 1);
  EXPECT_FALSE(m.mtp);
  const int64_t own = param_count(m).total;
  m.mtp = true;
  EXPECT_NEAR(model_flops_per_sequence(m, 4096) / 4096 * 1e-9, 259.992, 0.0005);
  int64_t stored = 0, repeated = 0;
  for (const HubTensor& tensor : family_of(m).tensors(m)) {
    stored += tensor.hub_shape.numel();
    if (tensor.repeated) repeated += tensor.hub_shape.numel();
  }
  EXPECT_EQ(repeated, 2 * m.vocab_size * m.hidden_size);
  EXPECT_EQ(param_count(m).total, stored - repeated);
  EXPECT_NEAR(static_cast<double>(stored) * 1e-9, 684.5, 0.05);
  EXPECT_NEAR(static_cast<double>(param_count(m).total - own) * 1e-9, 11.6, 0.05);
}

TEST(Published, DeepSeekV3) {
  const ModelConfig m = load_model("deepseek-ai/DeepSeek-V3");
  EXPECT_EQ(m.model_type, "deepseek_v3");
  EXPECT_EQ(m.num_layers, 61);
  EXPECT_EQ(m.dense_layers, 3);
  EXPECT_EQ(m.num_heads, 128);
  EXPECT_EQ(m.head_dim, 64);
  EXPECT_EQ(m.rope_scaling.factor, 40);
  EXPECT_NEAR(std::sqrt(m.mla_scale), 1.3689, 5e-5);
  EXPECT_EQ(m.sigmoid, (SigmoidRouterSpec{.groups = 8, .top_groups = 4, .scale = 2.5}));
  EXPECT_EQ(m.aux_loss_coef, 0);
  const Family& family = family_of(m);
  const BlockConfig dense = family.block(m, 2, 4096), moe = family.block(m, 3, 4096);
  EXPECT_EQ(dense.moe.num_experts, 0);
  EXPECT_EQ(dense.mlp_ffn, 18432);
  EXPECT_EQ(moe.mlp_ffn, 2048);
  EXPECT_EQ(moe.moe.num_experts, 256);
  EXPECT_EQ(moe.moe.router, RouterKind::sigmoid_topk);
  EXPECT_EQ(moe.moe.sigmoid, m.sigmoid);
  EXPECT_EQ(moe.sizes().key_dim, 192);
  EXPECT_EQ(moe.sizes().rope_dim, 64);
}

TEST(Published, KimiK2) {
  const ModelConfig m = load_model("moonshotai/Kimi-K2-Base");
  EXPECT_EQ(m.model_type, "kimi_k2");
  EXPECT_EQ(m.dense_layers, 1);
  EXPECT_EQ(m.num_heads, 64);
  EXPECT_EQ(m.num_experts, 384);
  EXPECT_NEAR(std::sqrt(m.mla_scale), 1.3466, 5e-5);
  EXPECT_EQ(m.sigmoid, (SigmoidRouterSpec{.groups = 1, .top_groups = 1, .scale = 2.827}));
  EXPECT_EQ(m.rope_scaling.start, 19);
  EXPECT_EQ(m.rope_scaling.end, 20);
}

TEST(Published, GptOss) {
  const ModelConfig m = load_model("openai/gpt-oss-120b");
  EXPECT_EQ(m.model_type, "gpt_oss");
  EXPECT_EQ(m.num_layers, 36);
  EXPECT_EQ(m.num_experts, 128);
  EXPECT_EQ(m.gate_form, (SwigluForm{.limit = 7, .alpha = 1.702}));
  EXPECT_EQ(m.aux_loss_coef, 0);
  EXPECT_NEAR(m.rope_scaling.amplitude, 1.3466, 5e-5);
  EXPECT_NE(m.rope_scaling.start, std::floor(m.rope_scaling.start));
  const Family& family = family_of(m);
  for (int64_t layer = 0; layer < 4; ++layer) {
    const BlockConfig block = family.block(m, layer, 4096);
    const auto& attention = std::get<GroupedQueryConfig>(block.attention);
    EXPECT_EQ(attention.window, layer % 2 == 0 ? 128 : 0);
    EXPECT_TRUE(attention.bias && attention.sinks && !attention.qk_norm);
    EXPECT_EQ(block.moe.router, RouterKind::softmax_topk);
    EXPECT_TRUE(block.moe.router_bias && block.moe.expert_bias);
    EXPECT_EQ(block.moe.gate_form, m.gate_form);
    EXPECT_EQ(block.moe.ffn, 2880);
  }
}

}  // namespace
}  // namespace sluice
