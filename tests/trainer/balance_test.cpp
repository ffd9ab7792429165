// What keeps experts balanced in a run: the selection bias of sigmoid routers and the balance loss of the others.
#include <gtest/gtest.h>

#include <cmath>

#include "support/host_tensor.h"
#include "support/training.h"
#include "support/whole_model.h"

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

// Whole models of two layers with experts that all count.
std::vector<Param*> shares_of(Trainer& trainer) {
  std::vector<Param*> shares;
  for (Param* param : parameters(trainer)) {
    if (param->spec.holds_shares) shares.push_back(param);
  }
  return shares;
}

const std::vector<std::string> kOverTheGlobalBatch{"--benchmark.balance=router", "--model.aux_loss_coef=0.5",
                                                   "--model.aux_loss_over=global_batch"};

// After a step each layer's shares are those of all its slots, of every micro-batch.
TEST(BalanceLossOverTheGlobalBatch, SharesAreThoseOfTheStepBefore) {
  const WholeModel model(kOverTheGlobalBatch);
  model.with_trainer([&](Trainer& trainer) {
    const std::vector<Param*> shares = shares_of(trainer);
    ASSERT_EQ(shares.size(), 2U);
    for (int step = 0; step < 2; ++step) {
      RoutingTrace trace(trainer.context());
      trainer.step(step);
      const std::vector<double> chosen = trace.take();
      const auto slots = static_cast<size_t>(trainer.spec().sampling.micro_batch * trainer.spec().seq_len * 2);
      ASSERT_EQ(chosen.size(), 2 * 2 * slots);
      std::vector<std::vector<double>> load(2, std::vector<double>(4));
      for (size_t i = 0; i < chosen.size(); ++i) ++load[i / slots % 2][static_cast<size_t>(chosen[i])];
      for (size_t layer = 0; layer < 2; ++layer) {
        std::vector<double> expected = load[layer];
        for (double& share : expected) share /= static_cast<double>(2 * slots);
        EXPECT_EQ(values_of(shares[layer]->value), expected) << step;
      }
    }
  });
}

std::vector<std::vector<double>> router_gradients(const std::vector<std::string>& overrides, double share) {
  std::vector<std::vector<double>> gradients;
  const WholeModel model(overrides);
  model.with_trainer([&](Trainer& trainer) {
    for (const Param* param : shares_of(trainer)) {
      assign(param->value, std::vector<double>(static_cast<size_t>(param->spec.shape.numel()), share));
    }
    trainer.step(0);
    for (const Param* param : parameters(trainer)) {
      if (param->spec.name.ends_with("router.weight")) gradients.push_back(values_of(param->grad));
    }
  });
  return gradients;
}

// A run begins with shares of 0: its first step has no balance loss, as with equal shares.
TEST(BalanceLossOverTheGlobalBatch, HasNoGradientBeforeThereAreShares) {
  const std::vector<std::vector<double>> without =
      router_gradients({"--benchmark.balance=router", "--model.aux_loss_coef=0"}, 0);
  ASSERT_EQ(without.size(), 2U);
  EXPECT_EQ(router_gradients(kOverTheGlobalBatch, 0), without);
  const std::vector<std::vector<double>> equal = router_gradients(kOverTheGlobalBatch, 0.25);
  for (size_t layer = 0; layer < 2; ++layer) {
    for (size_t i = 0; i < without[layer].size(); ++i) EXPECT_NEAR(equal[layer][i], without[layer][i], 1e-15);
  }
}

TEST(BalanceLossOverTheGlobalBatch, SharesBeginAtZeroAndAreNoTrainedParameters) {
  const RunSpec spec = spec_of("deepseek_v3", kOverTheGlobalBatch);
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  run_session(spec, {.device = DeviceKind::ref}, dataset, [&](Trainer& trainer) {
    const std::vector<Param*> shares = shares_of(trainer);
    ASSERT_EQ(shares.size(), 3U);
    for (FlatGroup* group : trainer.stage().groups()) {
      for (const FlatGroup::Piece& piece : group->pieces()) {
        if (!piece.param->spec.holds_shares) continue;
        EXPECT_FALSE(group->trained());
        EXPECT_EQ(values_of(piece.value), std::vector<double>(8, 0));
      }
    }
  });
}

TEST(BalanceLoss, IsOverWhatIsAskedFor) {
  const auto over = [](const std::string& family, const std::string& given) {
    std::vector<std::string> overrides{"--benchmark.balance=router"};
    if (!given.empty()) overrides.push_back("--model.aux_loss_over=" + given);
    return spec_of(family, overrides).stage().blocks.back().moe.balance_over();
  };
  EXPECT_EQ(over("qwen3_moe", ""), BalanceOver::micro_batch);
  EXPECT_EQ(over("deepseek_v3", ""), BalanceOver::sequence);
  for (const char* family : {"qwen3_moe", "deepseek_v3"}) {
    EXPECT_EQ(over(family, "micro_batch"), BalanceOver::micro_batch);
    EXPECT_EQ(over(family, "sequence"), BalanceOver::sequence);
    EXPECT_EQ(over(family, "global_batch"), BalanceOver::global_batch);
  }
}

// Over a micro-batch of one sequence both are the same; of two they are not.
TEST(BalanceLoss, OfSequencesIsThatOfMicroBatchesOfOne) {
  const auto gradients = [](const std::string& over, const std::string& local_batch) {
    return router_gradients({"--benchmark.balance=router", "--model.aux_loss_coef=0.5", "--model.aux_loss_over=" + over,
                             "--step_scheduler.local_batch_size=" + local_batch},
                            0);
  };
  EXPECT_EQ(gradients("sequence", "1"), gradients("micro_batch", "1"));
  EXPECT_NE(gradients("sequence", "2"), gradients("micro_batch", "2"));
}

TEST(RouterLosses, AreRefusedWhereThereAreNoExperts) {
  for (const auto& [key, value] : {std::pair<std::string, std::string>{"model.aux_loss_coef", "0.5"},
                                   {"model.router_z_loss_coef", "0.5"},
                                   {"model.aux_loss_over", "global_batch"}}) {
    const Config config = config::parse(fmt::format(R"(
model:
  {}: {}
  config: {{model_type: llama, vocab_size: 64, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4,
           num_key_value_heads: 2, intermediate_size: 24, rms_norm_eps: 1.0e-6, max_position_embeddings: 64}}
dataset: {{_target_: mock, seq_len: 16}}
)",
                                                    key.substr(key.find('.') + 1), value),
                                        "dense");
    try {
      resolve(config, 1);
      ADD_FAILURE() << key << " is accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(key + " " + value), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("has no experts"), std::string::npos) << error.what();
    }
  }
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
