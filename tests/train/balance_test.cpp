// What keeps experts balanced in a run: the selection bias of sigmoid routers and the balance loss of the others.
#include <gtest/gtest.h>

#include <cmath>

#include "support/host_tensor.h"
#include "support/training.h"
#include "whole_model.h"

namespace sluice::test {
namespace {

// After a step every bias has moved by the rate towards its share of the step's slots, each counted once.
TEST(SelectionBias, MovesAgainstTheLoadOfTheWholeStep) {
  for (const char* recompute : {"none", "full"}) {
    SCOPED_TRACE(recompute);
    const WholeModel model({"--benchmark.balance=router", std::string("--memory.recompute=") + recompute},
                           "deepseek_v3");
    model.with_trainer([&](Trainer& trainer) {
      Param* bias = nullptr;
      for (Param* param : parameters(trainer)) {
        if (param->spec.balanced_top_k > 0) bias = param;
      }
      ASSERT_NE(bias, nullptr);
      const std::vector<double> before = values_of(bias->value);
      RoutingTrace trace(trainer.context());
      trainer.step(0);
      std::vector<double> load(before.size());
      const std::vector<double> chosen = trace.take();
      const auto tokens = static_cast<double>(trainer.spec().tokens_per_step());
      ASSERT_EQ(static_cast<double>(chosen.size()), 2 * tokens);
      for (const double e : chosen) ++load[static_cast<size_t>(e)];
      EXPECT_EQ(values_of(bias->grad), load);
      const double mean = 2 * tokens / static_cast<double>(load.size());
      const std::vector<double> after = values_of(bias->value);
      int moved = 0;
      for (size_t e = 0; e < load.size(); ++e) {
        const double step = load[e] < mean ? 1e-3 : load[e] > mean ? -1e-3 : 0;
        EXPECT_DOUBLE_EQ(after[e], before[e] + step) << e;
        moved += step != 0 ? 1 : 0;
      }
      EXPECT_GT(moved, 0);
    });
  }
}

// Gradients train neither the bias nor does it count in their norm.
TEST(SelectionBias, LoadsAreNoGradient) {
  const WholeModel model({"--benchmark.balance=router"}, "deepseek_v3");
  model.with_trainer([&](Trainer& trainer) {
    const double norm = trainer.step(0).gradient_norm;
    double squares = 0;
    for (const Param* param : parameters(trainer)) {
      if (param->spec.balanced_top_k > 0) continue;
      for (const double g : values_of(param->grad)) squares += g * g;
    }
    EXPECT_NEAR(norm, std::sqrt(squares), 1e-12 * norm);
  });
}

RunSpec spec_of(const std::string& family, const std::vector<std::string>& overrides) {
  return resolve(tiny_config(overrides, family), 1);
}

TEST(BalanceLoss, IsTheFamilysUnlessGiven) {
  const std::string router = "--benchmark.balance=router", given = "--model.aux_loss_coef=0.25";
  const auto coef = [](const RunSpec& spec) { return spec.stage().blocks.back().moe.aux_loss_coef; };
  EXPECT_EQ(coef(spec_of("qwen3_moe", {router})), 0.001);
  EXPECT_EQ(coef(spec_of("qwen3_moe", {router, given})), 0.25);
  EXPECT_EQ(coef(spec_of("gpt_oss", {router})), 0);
  EXPECT_EQ(coef(spec_of("gpt_oss", {router, given})), 0.25);
  EXPECT_EQ(coef(spec_of("deepseek_v3", {router})), 0);
  EXPECT_EQ(coef(spec_of("deepseek_v3", {router, given})), 0.25);
}

}  // namespace
}  // namespace sluice::test
