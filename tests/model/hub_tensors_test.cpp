// For a small model of every family: the hub's tensors are exactly the modules' parameters, every element once.
#include "model/hub_tensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "comm/inproc/inproc.h"
#include "model/cards.h"
#include "nn/block.h"
#include "nn/embedding.h"

namespace sluice {
namespace {

ModelConfig small(const std::string& family) {
  ModelConfig m;
  m.model_type = family;
  m.vocab_size = 10;
  m.hidden_size = 6;
  m.num_layers = 3;
  m.num_heads = 4;
  m.num_kv_heads = 2;
  m.head_dim = 2;
  m.ffn = 7;
  m.num_experts = 4;
  m.top_k = 2;
  m.moe_ffn = 5;
  m.dense_layers = 1;
  m.shared_experts = 2;
  m.window = 3;
  m.q_lora = family == "kimi_k2" ? 0 : 3;
  m.kv_lora = 4;
  m.nope_dim = 3;
  m.v_dim = 5;
  m.qk_norm = family.starts_with("qwen3");
  m.attention_bias = family == "gpt_oss";
  return m;
}

class HubTensors : public testing::TestWithParam<std::string> {};

TEST_P(HubTensors, CoverEveryElementOnce) {
  const ModelConfig m = small(GetParam());
  std::map<std::string, std::vector<int>> covers;
  std::set<std::string> hub_names;
  for (const HubTensor& tensor : family_of(m).tensors(m)) {
    EXPECT_TRUE(hub_names.insert(tensor.hub_name).second) << tensor.hub_name;
    if (tensor.repeated) continue;
    const int64_t count = tensor.hub_shape.numel();
    EXPECT_EQ(tensor.rows * tensor.cols(), count) << tensor.hub_name;
    std::vector<int>& times = covers[tensor.parameter];
    times.resize(static_cast<size_t>(tensor.parameter_shape.numel()));
    ASSERT_LE(tensor.first() + count, tensor.parameter_shape.numel()) << tensor.hub_name;
    std::vector<int> stored(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      ++times[static_cast<size_t>(tensor.first() + i)];
      ASSERT_LT(tensor.hub_index(i), count) << tensor.hub_name;
      ++stored[static_cast<size_t>(tensor.hub_index(i))];
    }
    EXPECT_EQ(std::count(stored.begin(), stored.end(), 1), count) << tensor.hub_name;
  }
  int64_t total = 0;
  for (const auto& [name, times] : covers) {
    EXPECT_EQ(std::count(times.begin(), times.end(), 1), std::ssize(times)) << name;
    total += std::ssize(times);
  }
  EXPECT_EQ(total, param_count(m).total);
}

TEST_P(HubTensors, AreTheModulesParameters) {
  const ModelConfig m = small(GetParam());
  std::map<std::string, std::string> mapped, built;
  for (const HubTensor& tensor : family_of(m).tensors(m)) mapped[tensor.parameter] = tensor.parameter_shape.str();
  const ParamVisitor collect = [&](Param& param) { built[param.spec.name] = param.spec.shape.str(); };
  InprocWorld world(1);
  const std::unique_ptr<Communicator> ep = world.communicator(0);
  Embedding("embedding", m.vocab_size, m.hidden_size, m.init_std).visit(collect);
  for (int64_t layer = 0; layer < m.num_layers; ++layer) {
    Block(fmt::format("layers.{}", layer), family_of(m).block(m, layer, 8), *ep).visit(collect);
  }
  Head(m.vocab_size, m.hidden_size, m.norm_eps, m.init_std).visit(collect);
  EXPECT_EQ(mapped, built);
}

INSTANTIATE_TEST_SUITE_P(Families, HubTensors, testing::ValuesIn(family_names()),
                         [](const auto& instance) { return instance.param; });

HubTensor find(const ModelConfig& m, const std::string& hub) {
  for (HubTensor& tensor : family_of(m).tensors(m)) {
    if (tensor.hub_name == hub) return tensor;
  }
  require(false, "no {}", hub);
  return {};
}

// gate_up_proj [E, D, 2 F]: the column of an even number is a gate, of an odd one an up projection.
TEST(HubOrder, GptOssStacksAlternateGateAndUp) {
  const ModelConfig m = small("gpt_oss");
  const int64_t D = m.hidden_size, F = m.moe_ffn;
  const HubTensor gate_up = find(m, "model.layers.2.mlp.experts.gate_up_proj");
  const HubTensor bias = find(m, "model.layers.2.mlp.experts.gate_up_proj_bias");
  const HubTensor down = find(m, "model.layers.2.mlp.experts.down_proj");
  EXPECT_EQ(gate_up.hub_shape, (Shape{m.num_experts, D, 2 * F}));
  EXPECT_EQ(gate_up.expert, HubTensor::kAllExperts);
  for (int64_t e = 0; e < m.num_experts; ++e) {
    for (int64_t f = 0; f < F; ++f) {
      for (const int64_t up : {0, 1}) {
        const int64_t row = up * F + f, stored = 2 * f + up;
        EXPECT_EQ(bias.hub_index(e * 2 * F + row), e * 2 * F + stored);
        for (int64_t d = 0; d < D; ++d) {
          EXPECT_EQ(gate_up.hub_index((e * 2 * F + row) * D + d), (e * D + d) * 2 * F + stored);
        }
      }
      for (int64_t d = 0; d < D; ++d) EXPECT_EQ(down.hub_index((e * D + d) * F + f), (e * F + f) * D + d);
    }
  }
}

// The hub may have the head's matrix beside the embedding; nothing of ours is called head.weight, and no file gets it.
TEST(HubOrder, ATiedHeadIsTheEmbedding) {
  ModelConfig m = small("llama");
  const int64_t untied = param_count(m).total;
  m.tied_head = true;
  const HubTensor head = find(m, "lm_head.weight");
  EXPECT_EQ(head.parameter, "embedding.weight");
  EXPECT_TRUE(head.repeated);
  EXPECT_FALSE(head.exported);
  EXPECT_TRUE(find(m, "model.embed_tokens.weight").exported);
  for (const HubTensor& tensor : family_of(m).tensors(m)) EXPECT_NE(tensor.parameter, "head.weight");
  EXPECT_EQ(param_count(m).total, untied - m.vocab_size * m.hidden_size);
}

TEST(HubOrder, NamesOfTheNewParts) {
  const ModelConfig oss = small("gpt_oss"), deepseek = small("deepseek_v3"), kimi = small("kimi_k2");
  const auto expect = [&](const ModelConfig& m, const std::string& hub, const Shape& shape, const std::string& ours,
                          int64_t first) {
    const HubTensor tensor = find(m, hub);
    EXPECT_EQ(tensor.hub_shape, shape) << hub;
    EXPECT_EQ(tensor.parameter, ours) << hub;
    EXPECT_EQ(tensor.first(), first) << hub;
  };
  expect(oss, "model.layers.1.self_attn.k_proj.bias", {4}, "layers.1.attention.qkv.bias", 8);
  expect(oss, "model.layers.1.self_attn.o_proj.bias", {6}, "layers.1.attention.out.bias", 0);
  expect(oss, "model.layers.1.self_attn.sinks", {4}, "layers.1.attention.sinks", 0);
  expect(oss, "model.layers.1.mlp.router.bias", {4}, "layers.1.moe.router.bias", 0);
  expect(oss, "model.layers.1.mlp.experts.down_proj_bias", {4, 6}, "layers.1.moe.experts.down_bias", 0);
  expect(deepseek, "model.layers.0.mlp.up_proj.weight", {7, 6}, "layers.0.mlp.gate_up.weight", 7 * 6);
  expect(deepseek, "model.layers.1.self_attn.kv_a_proj_with_mqa.weight", {6, 6}, "layers.1.attention.down.weight", 18);
  expect(deepseek, "model.layers.1.self_attn.q_b_proj.weight", {20, 3}, "layers.1.attention.q_up.weight", 0);
  expect(deepseek, "model.layers.1.self_attn.kv_b_proj.weight", {32, 4}, "layers.1.attention.kv_up.weight", 0);
  expect(deepseek, "model.layers.1.mlp.gate.e_score_correction_bias", {4}, "layers.1.moe.router.selection_bias", 0);
  expect(deepseek, "model.layers.1.mlp.shared_experts.down_proj.weight", {6, 10}, "layers.1.mlp.down.weight", 0);
  expect(kimi, "model.layers.1.self_attn.q_proj.weight", {20, 6}, "layers.1.attention.down.weight", 0);
}

}  // namespace
}  // namespace sluice
