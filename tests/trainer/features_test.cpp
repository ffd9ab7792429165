#include "trainer/features.h"

#include <gtest/gtest.h>

#include "config/load.h"
#include "trainer/run_spec.h"
#include "trainer/scale_config.h"

namespace sluice {
namespace {

std::string features(const std::string& row, const std::vector<std::string>& overrides = {}) {
  Config config = config::load(std::string(SLUICE_SOURCE_DIR) + "/examples/benchmark/configs/" + row + ".yaml");
  config::apply_overrides(config, overrides);
  return describe_features(resolve(scale_config(config, Scale::tiny, 1).config, 1).stage());
}

bool mentions(const std::string& text, const std::string& word) {
  return text.find(word) != std::string::npos;
}

TEST(Features, AreThoseOfTheRow) {
  const std::string deepseek = features("deepseek_v3_256"), gpt = features("gpt_oss_20b_8");
  for (const char* word :
       {"latent attention", "query latent", "YaRN x40", "dense layer", "a shared one", "forced gate"}) {
    EXPECT_TRUE(mentions(deepseek, word)) << word << " in: " << deepseek;
  }
  for (const char* word : {"biases", "sinks", "window", "YaRN x32", "clamped gate"}) {
    EXPECT_TRUE(mentions(gpt, word)) << word << " in: " << gpt;
  }
  EXPECT_TRUE(mentions(features("qwen3_moe_30b_8"), "normed queries and keys"));
}

TEST(Features, RoutersAreNamedWhereTheyDecide) {
  const std::string balance = "--benchmark.balance";
  EXPECT_TRUE(mentions(features("deepseek_v3_256", {balance, "router"}), "sigmoid router"));
  EXPECT_TRUE(mentions(features("deepseek_v3_256", {balance, "router"}), "selection bias"));
  EXPECT_TRUE(mentions(features("qwen3_moe_30b_8", {balance, "router"}), "balance loss x0.001"));
  EXPECT_TRUE(mentions(features("gpt_oss_20b_8", {balance, "router"}), "softmax router, bias"));
}

TEST(Features, LossesAreNamedWhereTheyAreOn) {
  const std::vector<std::string> router{"--benchmark.balance", "router"};
  EXPECT_FALSE(mentions(features("qwen3_moe_30b_8", router), "z-loss"));
  std::vector<std::string> asked = router;
  for (const char* word : {"--model.aux_loss_over", "global_batch", "--model.router_z_loss_coef", "0.002",
                           "--loss_fn.z_loss_coef", "0.0001"}) {
    asked.emplace_back(word);
  }
  const std::string text = features("qwen3_moe_30b_8", asked);
  for (const char* word :
       {"balance loss of the global batch x0.001", ", z-loss x0.002", "z-loss of the logits x0.0001"}) {
    EXPECT_TRUE(mentions(text, word)) << word << " in: " << text;
  }
}

}  // namespace
}  // namespace sluice
