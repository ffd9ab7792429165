#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/error.h"
#include "comm/inproc/inproc.h"
#include "model/cards.h"
#include "nn/block.h"
#include "nn/embedding.h"

namespace sluice {
namespace {

ModelConfig published() {
  return load_model("Qwen/Qwen3-30B-A3B");
}

ModelConfig small() {
  ModelConfig m = published();
  m.vocab_size = 10;
  m.hidden_size = 6;
  m.num_layers = 2;
  m.num_heads = 4;
  m.num_kv_heads = 2;
  m.head_dim = 2;
  m.num_experts = 3;
  m.top_k = 2;
  m.moe_ffn = 5;
  return m;
}

// seed_table.md of the published benchmark: 23.006 GFLOP per token at S = 4096.
TEST(Qwen3Moe, FlopsPerToken) {
  EXPECT_DOUBLE_EQ(model_flops_per_sequence(published(), 4096) / 4096, 23006281728.0);
}

// The published table: 21.773 s a step of 512 sequences on 8 GPUs is 277 TFLOP/s a GPU.
TEST(Qwen3Moe, FlopsReproduceThePublishedRow) {
  EXPECT_NEAR(model_flops_per_sequence(published(), 4096) * 512 / (21.773 * 8) / 1e12, 277.0, 0.05);
}

// The golden of NeMo AutoModel's qwen3_flops test: one expert of width 14336.
TEST(Qwen3Moe, FlopsGolden) {
  ModelConfig m = published();
  m.num_layers = 32;
  m.hidden_size = 4096;
  m.num_heads = 32;
  m.num_kv_heads = 8;
  m.head_dim = 256;
  m.moe_ffn = 14336;
  m.top_k = 1;
  m.vocab_size = 32000;
  EXPECT_EQ(model_flops_per_sequence(m, 2048), 110462263885824.0);
}

// As Hugging Face's class has it: experts where (layer + 1) % step is 0 and the list does not name the layer.
TEST(Qwen3Moe, LayersWithoutExperts) {
  const std::vector<HfOverride> overrides = {{"num_hidden_layers", "6", ""},
                                             {"decoder_sparse_step", "2", ""},
                                             {"mlp_only_layers", "[3, 4, 90]", ""},
                                             {"norm_topk_prob", "false", ""}};
  const ModelConfig m = load_model("Qwen/Qwen3-30B-A3B", overrides);
  std::vector<int64_t> with_experts;
  for (int64_t layer = 0; layer < 6; ++layer) {
    const BlockConfig block = family_of(m).block(m, layer, 8);
    EXPECT_EQ(block.mlp_ffn, block.moe.num_experts > 0 ? 0 : 6144) << layer;
    if (block.moe.num_experts > 0) with_experts.push_back(layer);
  }
  EXPECT_EQ(with_experts, (std::vector<int64_t>{1, 5}));
  EXPECT_FALSE(family_of(m).block(m, 1, 8).moe.renormalize);
  ModelConfig plain = m;
  plain.mlp_layers.clear();
  // Experts of 8 x 768 a token are as wide as the MLP: counts of FLOPs are equal, those of parameters are not.
  EXPECT_EQ(model_flops_per_sequence(m, 8), model_flops_per_sequence(plain, 8));
  EXPECT_EQ(param_count(plain).total - param_count(m).total, 2048 * (128 + 3 * 768 * 128 - 3 * 6144));
}

TEST(Qwen3Moe, ParameterCount) {
  const ParamCount count = param_count(published());
  EXPECT_EQ(count.total, 30532122624);
  EXPECT_EQ(count.active, 3353032704);
  EXPECT_EQ(count.embedding, 2 * 151936 * 2048);
}

TEST(Qwen3Moe, BlockConfig) {
  const ModelConfig m = published();
  const BlockConfig block = family_of(m).block(m, 47, 4096);
  const auto& attention = std::get<GroupedQueryConfig>(block.attention);
  EXPECT_EQ(attention.hidden, 2048);
  EXPECT_EQ(attention.heads, 32);
  EXPECT_EQ(attention.kv_heads, 4);
  EXPECT_EQ(attention.head_dim, 128);
  EXPECT_EQ(attention.seq_len, 4096);
  EXPECT_EQ(attention.window, 0);
  EXPECT_TRUE(attention.qk_norm);
  EXPECT_EQ(block.moe.hidden, 2048);
  EXPECT_EQ(block.moe.ffn, 768);
  EXPECT_EQ(block.moe.num_experts, 128);
  EXPECT_EQ(block.moe.top_k, 8);
  EXPECT_EQ(block.moe.seq_len, 4096);
  EXPECT_EQ(block.moe.router, RouterKind::softmax_topk);
  EXPECT_EQ(block.moe.gate.num_experts, 128);
  EXPECT_EQ(block.moe.gate.top_k, 8);
  EXPECT_EQ(block.norm_eps, 1e-6);
  EXPECT_EQ(block.init_std, 0.02);
  EXPECT_THROW(family_of(m).block(m, 48, 4096), Error);
}

TEST(Qwen3Moe, TensorsCoverEveryElementOnce) {
  const ModelConfig m = small();
  struct Cover {
    Shape shape;
    std::vector<int> times;
  };
  std::map<std::string, Cover> covers;
  std::set<std::string> hub_names;
  for (const HubTensor& tensor : family_of(m).tensors(m)) {
    EXPECT_TRUE(hub_names.insert(tensor.hub_name).second) << tensor.hub_name;
    auto [at, fresh] = covers.try_emplace(tensor.parameter);
    Cover& cover = at->second;
    if (fresh) {
      cover.shape = tensor.parameter_shape;
      cover.times.resize(static_cast<size_t>(tensor.parameter_shape.numel()));
    }
    EXPECT_EQ(cover.shape, tensor.parameter_shape) << tensor.parameter;
    EXPECT_EQ(tensor.rows * tensor.cols(), tensor.hub_shape.numel()) << tensor.hub_name;
    EXPECT_EQ(tensor.hub_shape.rank() == 1 ? 1 : tensor.hub_shape[1], tensor.cols()) << tensor.hub_name;
    ASSERT_LE(tensor.first() + tensor.hub_shape.numel(), tensor.parameter_shape.numel()) << tensor.hub_name;
    for (int64_t i = 0; i < tensor.hub_shape.numel(); ++i) ++cover.times[static_cast<size_t>(tensor.first() + i)];
  }
  int64_t total = 0;
  for (const auto& [name, cover] : covers) {
    for (const int times : cover.times) ASSERT_EQ(times, 1) << name;
    total += static_cast<int64_t>(cover.times.size());
  }
  EXPECT_EQ(total, param_count(m).total);

  const std::map<std::string, Shape> expected = {
      {"embedding.weight", {10, 6}},
      {"final_norm.gamma", {6}},
      {"head.weight", {10, 6}},
      {"norm1.gamma", {6}},
      {"norm2.gamma", {6}},
      {"attention.qkv.weight", {16, 6}},
      {"attention.q_norm.gamma", {2}},
      {"attention.k_norm.gamma", {2}},
      {"attention.out.weight", {6, 8}},
      {"moe.router.weight", {3, 6}},
      {"moe.experts.gate_up", {3, 10, 6}},
      {"moe.experts.down", {3, 6, 5}},
  };
  EXPECT_EQ(covers.size(), 3u + 2 * 9);
  for (const auto& [name, cover] : covers) {
    const bool in_layer = name.starts_with("layers.");
    const auto at = expected.find(in_layer ? name.substr(9) : name);
    ASSERT_NE(at, expected.end()) << name;
    EXPECT_EQ(cover.shape, at->second) << name;
    EXPECT_TRUE(!in_layer || name.starts_with("layers.0.") || name.starts_with("layers.1.")) << name;
  }
}

TEST(Qwen3Moe, HubNamesAndPlaces) {
  const ModelConfig m = small();
  std::map<std::string, HubTensor> by_hub;
  for (HubTensor& tensor : family_of(m).tensors(m)) by_hub.emplace(tensor.hub_name, tensor);
  EXPECT_EQ(by_hub.size(), 3u + 2 * (9 + 3 * 3));
  const auto expect = [&](const std::string& hub, const Shape& shape, const std::string& ours, int64_t row,
                          int64_t expert = -1) {
    ASSERT_TRUE(by_hub.contains(hub)) << hub;
    const HubTensor& tensor = by_hub.at(hub);
    EXPECT_EQ(tensor.hub_shape, shape) << hub;
    EXPECT_EQ(tensor.parameter, ours) << hub;
    EXPECT_EQ(tensor.row, row) << hub;
    EXPECT_EQ(tensor.expert, expert) << hub;
  };
  expect("model.embed_tokens.weight", {10, 6}, "embedding.weight", 0);
  expect("model.norm.weight", {6}, "final_norm.gamma", 0);
  expect("lm_head.weight", {10, 6}, "head.weight", 0);
  expect("model.layers.1.input_layernorm.weight", {6}, "layers.1.norm1.gamma", 0);
  expect("model.layers.1.post_attention_layernorm.weight", {6}, "layers.1.norm2.gamma", 0);
  expect("model.layers.1.self_attn.q_proj.weight", {8, 6}, "layers.1.attention.qkv.weight", 0);
  expect("model.layers.1.self_attn.k_proj.weight", {4, 6}, "layers.1.attention.qkv.weight", 8);
  expect("model.layers.1.self_attn.v_proj.weight", {4, 6}, "layers.1.attention.qkv.weight", 12);
  expect("model.layers.1.self_attn.q_norm.weight", {2}, "layers.1.attention.q_norm.gamma", 0);
  expect("model.layers.1.self_attn.k_norm.weight", {2}, "layers.1.attention.k_norm.gamma", 0);
  expect("model.layers.1.self_attn.o_proj.weight", {6, 8}, "layers.1.attention.out.weight", 0);
  expect("model.layers.1.mlp.gate.weight", {3, 6}, "layers.1.moe.router.weight", 0);
  expect("model.layers.1.mlp.experts.2.gate_proj.weight", {5, 6}, "layers.1.moe.experts.gate_up", 20, 2);
  expect("model.layers.1.mlp.experts.2.up_proj.weight", {5, 6}, "layers.1.moe.experts.gate_up", 25, 2);
  expect("model.layers.1.mlp.experts.2.down_proj.weight", {6, 5}, "layers.1.moe.experts.down", 12, 2);
}

// The modules, built from the family's block configuration, have exactly the mapped parameters.
TEST(Qwen3Moe, TensorsAreTheModulesParameters) {
  const ModelConfig m = small();
  std::map<std::string, Shape> mapped;
  for (const HubTensor& tensor : family_of(m).tensors(m)) mapped.emplace(tensor.parameter, tensor.parameter_shape);

  std::map<std::string, Shape> built;
  const ParamVisitor collect = [&](Param& param) { built.emplace(param.spec.name, param.spec.shape); };
  InprocWorld world(1);
  const std::unique_ptr<Communicator> ep = world.communicator(0);
  Embedding("embedding", m.vocab_size, m.hidden_size, m.init_std).visit(collect);
  for (int64_t layer = 0; layer < m.num_layers; ++layer) {
    Block block(fmt::format("layers.{}", layer), family_of(m).block(m, layer, 8), *ep);
    block.visit(collect);
  }
  Head(m.vocab_size, m.hidden_size, m.norm_eps, m.init_std).visit(collect);

  for (const auto& [name, shape] : mapped) {
    ASSERT_TRUE(built.contains(name)) << name;
    EXPECT_EQ(built.at(name), shape) << name << " " << built.at(name).str();
  }
  EXPECT_EQ(built.size(), mapped.size());
}

}  // namespace
}  // namespace sluice
