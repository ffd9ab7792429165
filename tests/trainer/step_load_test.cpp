// How evenly experts are used: a step counts every slot of the global batch once.
#include <gtest/gtest.h>

#include "support/training.h"
#include "support/whole_model.h"
#include "training/session.h"

namespace sluice::test {
namespace {

// What the routers chose in a step, micro-batch by micro-batch.
TEST(ExpertLoadOfAStep, CountsEverySlotOnce) {
  for (const std::string recompute : {"none", "full"}) {
    for (const std::string family : {"qwen3_moe", "deepseek_v3", "gpt_oss"}) {
      SCOPED_TRACE(fmt::format("{} {}", family, recompute));
      const WholeModel model({"--benchmark.balance=router", "--memory.recompute=" + recompute}, family);
      model.with_trainer([&](Trainer& trainer) {
        const RunSpec& spec = trainer.spec();
        const auto layers = static_cast<size_t>(family == "deepseek_v3" ? 1 : 2);
        const auto experts = static_cast<size_t>(spec.model.num_experts);
        const auto slots = static_cast<size_t>(spec.sampling.micro_batch * spec.seq_len * spec.model.top_k);
        for (int step = 0; step < 2; ++step) {
          trainer.evaluate(MockDataset(3, spec.model.vocab_size), spec.sampling.global_batch);
          RoutingTrace trace(trainer.context());
          const std::vector<LayerLoad> got = trainer.step(step).expert_load;
          std::vector<std::vector<double>> counts(layers, std::vector<double>(experts));
          const std::vector<double> chosen = trace.take();
          ASSERT_EQ(chosen.size(), slots * layers * static_cast<size_t>(spec.sampling.micro_batches()));
          for (size_t i = 0; i < chosen.size(); ++i) ++counts[i / slots % layers][static_cast<size_t>(chosen[i])];
          ASSERT_EQ(got.size(), layers);
          for (size_t layer = 0; layer < layers; ++layer) {
            const std::string name = "layers." + std::to_string(layer + 2 - layers);
            EXPECT_EQ(got[layer], layer_load(name, counts[layer]));
          }
        }
      });
    }
  }
}

// A forced gate's is counted too; a benchmark's step is timed and counts nothing.
TEST(ExpertLoadOfAStep, IsOfTrainings) {
  const auto loads = [](const std::vector<std::string>& overrides) {
    std::vector<LayerLoad> counted;
    const WholeModel model(overrides);
    model.with_trainer([&](Trainer& trainer) { counted = trainer.step(0).expert_load; });
    return counted;
  };
  const std::vector<LayerLoad> forced = loads({"--benchmark.balance=spread"});
  ASSERT_EQ(forced.size(), 2U);
  EXPECT_EQ(forced[1].max_over_mean, 1);
  EXPECT_NEAR(forced[1].entropy, 1, 1e-15);
  EXPECT_TRUE(loads({"--benchmark.balance=spread", "--recipe=benchmark"}).empty());
}

// The extra layer's come last; a dense layer has none.
TEST(ExpertLoadOfAStep, NamesTheLayersWithExperts) {
  const RunSpec spec = resolve(tiny_config({"--benchmark.balance=router"}, "deepseek_v3_mtp"), 1);
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  run_session(spec, {.device = DeviceKind::ref}, dataset, [&](Trainer& trainer) {
    std::vector<std::string> names;
    for (const LayerLoad& load : trainer.step(0).expert_load) {
      names.push_back(load.layer);
      EXPECT_GE(load.max_over_mean, 1) << load.layer;
    }
    EXPECT_EQ(names, (std::vector<std::string>{"layers.1", "layers.2", "layers.3", "layers.4"}));
  });
}

}  // namespace
}  // namespace sluice::test
