// What a user of the trainer meets besides the loss going down: evaluation, values that are not finite, routing beyond
// what was planned, a batch that does not fit the ranks.
#include "trainer/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "data/mock.h"
#include "ops/head_loss.h"
#include "support/training.h"
#include "training/session.h"

namespace sluice::test {
namespace {

LaunchOptions quick() {
  return {.device = DeviceKind::ref, .comm = {.timeout_s = 60}};
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return describe(error);
  }
  return "no error";
}

TEST(Trainer, EvaluatesToTheLossOfTheSameBatch) {
  for (const std::vector<std::string>& overrides :
       {std::vector<std::string>{},
        {"--distributed.pp_size=2", "--distributed.ep_size=2", "--step_scheduler.local_batch_size=4"}}) {
    const RunSpec spec = resolve(tiny_config(overrides), overrides.empty() ? 1 : 4);
    const MockDataset dataset(spec.seed, spec.model.vocab_size);
    run_session(spec, quick(), dataset, [&](Trainer& trainer) {
      const double evaluated = trainer.evaluate(dataset, spec.sampling.global_batch).loss;
      EXPECT_NEAR(trainer.step(0).loss, evaluated, 1e-12);
      // Learning from a batch makes it more likely.
      EXPECT_LT(trainer.evaluate(dataset, spec.sampling.global_batch).loss, evaluated);
    });
  }
}

TEST(Trainer, StopsAtALossThatIsNotFiniteAndNamesTheFirstBadTensor) {
  for (const int ranks : {1, 2}) {
    const RunSpec spec = resolve(tiny_config({"--optimizer.lr=1e300", "--clip_grad_norm.max_norm=null"}), ranks);
    const MockDataset dataset(spec.seed, spec.model.vocab_size);
    const std::string message = message_of([&] {
      run_session(spec, quick(), dataset, [&](Trainer& trainer) {
        for (int step = 0; step < 3; ++step) trainer.step(step);
      });
    });
    EXPECT_NE(message.find("at step 2: first bad tensor"), std::string::npos) << message;
    EXPECT_NE(message.find("lower optimizer.lr"), std::string::npos) << message;
  }
}

TEST(Trainer, FindsABadWeightBeforeItSpreads) {
  const RunSpec spec = resolve(tiny_config({}), 1);
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  const std::string message = message_of([&] {
    run_session(spec, quick(), dataset, [&](Trainer& trainer) {
      for (FlatGroup* group : trainer.stage().groups()) {
        for (const FlatGroup::Piece& piece : group->pieces()) {
          if (piece.param->spec.name == "layers.2.moe.experts.down") *piece.value.data<double>() = std::nan("");
        }
      }
      trainer.step(0);
    });
  });
  EXPECT_NE(message.find("loss is nan at step 1: first bad tensor layers.2.experts, input w of grouped_gemm"),
            std::string::npos)
      << message;
  // No rate has had an effect yet.
  EXPECT_NE(message.find("the weights the run begins with make it so"), std::string::npos) << message;
  EXPECT_EQ(message.find("optimizer.lr"), std::string::npos) << message;
}

TEST(Trainer, RoutingBeyondThePlanGrowsAndIsReported) {
  const auto grown = [](const std::string& load_factor) {
    const RunSpec spec = resolve(
        tiny_config({"--benchmark.balance=router", "--distributed.ep_size=2", "--memory.load_factor=" + load_factor}),
        2);
    const MockDataset dataset(spec.seed, spec.model.vocab_size);
    std::vector<ArenaGrowth> reports;
    std::mutex mutex;
    run_session(spec, quick(), dataset, [&](Trainer& trainer) {
      trainer.step(0);
      const std::lock_guard lock(mutex);
      for (const ArenaGrowth& report : trainer.runtime().grown()) reports.push_back(report);
    });
    return reports;
  };
  EXPECT_FALSE(grown("1").empty());
  EXPECT_TRUE(grown("2").empty());
}

// Random tokens; every other sample's last label does not count.
class SomeUnlearnt final : public Dataset {
 public:
  explicit SomeUnlearnt(int64_t vocab) : mock_(1, vocab) {}
  void sample(int64_t id, std::span<int32_t> tokens) const override {
    mock_.sample(id, tokens);
    if (id % 2 == 0) tokens.back() = kIgnoredLabel;
  }
  int64_t size() const override { return mock_.size(); }
  int64_t vocab_size() const override { return mock_.vocab_size(); }
  std::string identity() const override { return "SomeUnlearnt"; }

 private:
  MockDataset mock_;
};

// Weights are almost nothing at first, so each label costs ln 64 in both losses, however many there are and whichever
// ranks have them.
TEST(Trainer, TheExtraLayersLossIsOverItsOwnLabels) {
  for (const std::vector<std::string>& overrides :
       {std::vector<std::string>{},
        {"--distributed.ep_size=2"},
        {"--distributed.pp_size=2", "--step_scheduler.local_batch_size=8"}}) {
    const RunSpec spec = resolve(tiny_config(overrides, "deepseek_v3_mtp"), overrides.empty() ? 1 : 2);
    const SomeUnlearnt dataset(spec.model.vocab_size);
    const int64_t samples = spec.sampling.global_batch;
    run_session(spec, quick(), dataset, [&](Trainer& trainer) {
      const StepResult result = trainer.step(0);
      EXPECT_EQ(result.label_tokens, samples * spec.seq_len - samples / 2);
      EXPECT_EQ(result.mtp_label_tokens, samples * (spec.seq_len - 1) - samples / 2);
      EXPECT_NEAR(result.loss, std::log(64), 0.05);
      EXPECT_NEAR(result.mtp_loss.value_or(0), std::log(64), 0.05);
    });
  }
}

TEST(Trainer, KeepsMomentsInBf16WhenAsked) {
  const auto state_bytes = [](const std::string& dtype) {
    const RunSpec spec = resolve(tiny_config({"--runtime.dtype=f32", "--optimizer.state_dtype=" + dtype}), 1);
    const MockDataset dataset(spec.seed, spec.model.vocab_size);
    size_t bytes = 0;
    double loss = 0;
    run_session(spec, quick(), dataset, [&](Trainer& trainer) {
      for (int step = 0; step < 3; ++step) loss = trainer.step(step).loss;
      bytes = trainer.ledger().at_peak(MemoryKind::optimizer);
    });
    EXPECT_TRUE(std::isfinite(loss));
    return bytes;
  };
  const auto full = static_cast<double>(state_bytes("fp32"));
  EXPECT_NEAR(static_cast<double>(state_bytes("bf16")) / full, 0.5, 0.02);
}

TEST(Trainer, LeavesTheOptimizerOutWhenAsked) {
  const RunSpec spec = resolve(tiny_config({"--benchmark.optimizer=false"}), 1);
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  run_session(spec, quick(), dataset, [&](Trainer& trainer) {
    const double loss = trainer.evaluate(dataset, spec.sampling.global_batch).loss;
    EXPECT_GT(trainer.step(0).gradient_norm, 0);
    EXPECT_EQ(trainer.evaluate(dataset, spec.sampling.global_batch).loss, loss) << "a weight has changed";
    EXPECT_LT(trainer.ledger().at_peak(MemoryKind::optimizer), 4096U) << "what a step is told, and no moments";
  });
}

TEST(RunSpec, RefusesALocalShardThatCannotBe) {
  const auto refusal = [](const std::vector<std::string>& overrides, int ranks) {
    return message_of([&] { resolve(tiny_config(overrides), ranks); });
  };
  EXPECT_NE(refusal({"--benchmark.local_shard=3"}, 1).find("benchmark.local_shard 3 does not divide num_experts 8"),
            std::string::npos);
  EXPECT_NE(refusal({"--benchmark.local_shard=2", "--distributed.ep_size=2"}, 2)
                .find("benchmark.local_shard 2 stands for expert parallelism, and distributed.ep_size is 2"),
            std::string::npos);
  EXPECT_EQ(refusal({"--benchmark.local_shard=8"}, 2), "no error");
}

TEST(RunSpec, RefusesWhatTheRanksCannotDo) {
  const auto refusal = [](std::vector<std::string> overrides, int ranks) {
    return message_of([&] { resolve(tiny_config(overrides), ranks); });
  };
  EXPECT_NE(refusal({}, 3).find("global_batch_size 8 is not a multiple of local_batch_size 1 x 3"), std::string::npos);
  EXPECT_NE(refusal({}, 3).find("nearest that are: 6, 9"), std::string::npos);
  EXPECT_NE(
      refusal({"--distributed.pp_size=8", "--step_scheduler.local_batch_size=8"}, 8).find("4 layers cannot fill 8"),
      std::string::npos);
  EXPECT_NE(refusal({"--distributed.tp_size=2"}, 2).find("tensor and context parallelism are not available"),
            std::string::npos);
  EXPECT_NE(refusal({"--distributed.dp_size=3"}, 2).find("there are 2 data-parallel ranks"), std::string::npos);
  EXPECT_NE(refusal({"--distributed.pp_size=2", "--step_scheduler.local_batch_size=4",
                     "--distributed.pipeline.pp_microbatch_size=3"},
                    2)
                .find("pp_microbatch_size 3 does not divide"),
            std::string::npos);
}

}  // namespace
}  // namespace sluice::test
