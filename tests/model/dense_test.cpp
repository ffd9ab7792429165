// The dense families: sizes against public figures, tensors that cover every parameter once, refusals.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/error.h"
#include "model/family.h"

namespace sluice {
namespace {

ModelConfig make(const std::string& json) {
  return make_model(HfConfig::parse(json, "config.json"));
}

// The public config.json of meta-llama/Llama-2-7b-hf.
ModelConfig llama2_7b() {
  return make(R"({"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32,
      "num_attention_heads": 32, "num_key_value_heads": 32, "intermediate_size": 11008, "rms_norm_eps": 1e-5,
      "max_position_embeddings": 4096, "tie_word_embeddings": false})");
}

// The public config.json of Qwen/Qwen3-8B.
ModelConfig qwen3_8b() {
  return make(R"({"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 4096, "num_hidden_layers": 36,
      "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 12288,
      "rms_norm_eps": 1e-6, "rope_theta": 1000000, "max_position_embeddings": 40960, "tie_word_embeddings": false})");
}

TEST(DenseFamilies, ParameterCounts) {
  EXPECT_EQ(param_count(llama2_7b()).total, 6738415616);
  EXPECT_EQ(param_count(llama2_7b()).active, 6738415616);
  EXPECT_EQ(param_count(qwen3_8b()).total, 8190735360);
}

// 6 flops a token for each matrix parameter but the embedding, and causal attention: 6 L S n hd.
TEST(DenseFamilies, FlopsAreSixPerParameterAndAttention) {
  for (const ModelConfig& m : {llama2_7b(), qwen3_8b()}) {
    const ParamCount count = param_count(m);
    const int64_t norms = m.hidden_size * (2 * m.num_layers + 1) + (m.qk_norm ? 2 * m.head_dim * m.num_layers : 0);
    const auto matrices = static_cast<double>(count.total - m.vocab_size * m.hidden_size - norms);
    const auto attention = static_cast<double>(6 * m.num_layers * 4096 * m.num_heads * m.head_dim);
    EXPECT_DOUBLE_EQ(model_flops_per_sequence(m, 4096), 4096 * (6 * matrices + attention)) << m.model_type;
  }
}

TEST(DenseFamilies, BlocksHaveAnMlpAndNoExperts) {
  const BlockConfig llama = family_of(llama2_7b()).block(llama2_7b(), 31, 4096);
  EXPECT_EQ(llama.moe.num_experts, 0);
  EXPECT_EQ(llama.mlp_ffn, 11008);
  EXPECT_FALSE(std::get<GroupedQueryConfig>(llama.attention).qk_norm);
  EXPECT_EQ(llama.norm_eps, 1e-5);
  const BlockConfig qwen = family_of(qwen3_8b()).block(qwen3_8b(), 0, 4096);
  EXPECT_TRUE(std::get<GroupedQueryConfig>(qwen.attention).qk_norm);
}

TEST(DenseFamilies, TensorsCoverEveryElementOnce) {
  const ModelConfig m = qwen3_8b();
  std::map<std::string, std::pair<int64_t, int64_t>> covered;  // elements, of
  std::set<std::string> names;
  for (const HubTensor& tensor : family_of(m).tensors(m)) {
    EXPECT_TRUE(names.insert(tensor.hub_name).second) << tensor.hub_name;
    auto& [elements, of] = covered[tensor.parameter];
    EXPECT_EQ(tensor.first(), elements) << tensor.hub_name << " does not follow the part before it";
    elements += tensor.hub_shape.numel();
    of = tensor.parameter_shape.numel();
  }
  for (const auto& [name, cover] : covered) EXPECT_EQ(cover.first, cover.second) << name;
  EXPECT_TRUE(names.contains("model.layers.35.mlp.up_proj.weight"));
  EXPECT_EQ(covered.size(), 3U + 36 * 8);
}

TEST(DenseFamilies, RefuseWhatTheyAreNot) {
  const auto refused = [](const std::string& field) {
    try {
      make(R"({"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1,
          "num_attention_heads": 2, "intermediate_size": 8, )" +
           field + "}");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_NE(refused(R"("mlp_bias": true)").find("mlp_bias true (config.json:2): the MLP has no biases"),
            std::string::npos);
  EXPECT_NE(refused(R"("rope_scaling": {"rope_type": "longrope", "factor": 8})").find("longrope"), std::string::npos);
  EXPECT_EQ(refused(R"("mlp_bias": false)"), "accepted");
}

}  // namespace
}  // namespace sluice
