// examples/pretrain/tiny_text.yaml in bf16 beside fp32: the same curve. On the CPU with three seeds, a smaller model in
// every test run and the example itself in a sweep; on a GPU, if there is one, its first 200 steps.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <numeric>

#include "support/training.h"
#include "trainer/make_dataset.h"

namespace sluice::test {
namespace {

// Single batches differ more from one to the next than precisions do: what is compared are means over so many steps.
constexpr int64_t kWindow = 20;

std::vector<double> losses(const std::vector<std::string>& overrides, const Hardware& hardware, int64_t steps) {
  Config config = config::load(std::string(SLUICE_SOURCE_DIR) + "/examples/pretrain/tiny_text.yaml");
  config::apply_overrides(config, overrides);
  const RunSpec spec = resolve(config, 1);
  const auto dataset = make_dataset(config, config.dataset, "dataset", spec);
  std::vector<double> list;
  run_session(spec, {.hardware = hardware}, *dataset, [&](Trainer& trainer) {
    for (int64_t step = 0; step < steps; ++step) list.push_back(trainer.step(step).loss);
  });
  EXPECT_EQ(std::ssize(list), steps);
  return list;
}

std::vector<double> window_means(const std::vector<double>& list) {
  std::vector<double> means;
  for (auto begin = list.begin(); list.end() - begin >= kWindow; begin += kWindow) {
    means.push_back(std::accumulate(begin, begin + kWindow, 0.0) / kWindow);
  }
  return means;
}

// The mean difference of bf16 from fp32, over windows and seeds, is below the spread of the seeds: the mean over
// windows of the deviation of their curves in fp32. A seed draws the weights and the order of the data.
void expect_same_curves(std::vector<std::string> overrides, const Hardware& cpu) {
  constexpr int64_t kSteps = 300, kSeeds = 3;
  const auto run = [&](int64_t seed, const char* dtype) {
    std::vector<std::string> all = overrides;
    all.push_back(fmt::format("--seed={}", seed));
    all.push_back(fmt::format("--runtime.dtype={}", dtype));
    const std::vector<double> list = losses(all, cpu, kSteps);
    EXPECT_LT(list.back(), 0.8 * list.front()) << dtype << ", seed " << seed << ": nothing was learned";
    return window_means(list);
  };
  std::vector<std::vector<double>> wide;
  double difference = 0;
  for (int64_t seed = 1; seed <= kSeeds; ++seed) {
    wide.push_back(run(seed, "f32"));
    const std::vector<double> narrow = run(seed, "bf16");
    ASSERT_EQ(narrow.size(), static_cast<size_t>(kSteps / kWindow));
    for (size_t i = 0; i < narrow.size(); ++i) difference += std::abs(narrow[i] - wide.back()[i]);
  }
  double spread = 0;
  for (size_t i = 0; i < wide.front().size(); ++i) {
    double sum = 0, squares = 0;
    for (const std::vector<double>& curve : wide) sum += curve[i];
    for (const std::vector<double>& curve : wide) squares += std::pow(curve[i] - sum / kSeeds, 2);
    spread += std::sqrt(squares / (kSeeds - 1));
  }
  const auto windows = static_cast<double>(wide.front().size());
  difference /= kSeeds * windows;
  spread /= windows;
  EXPECT_GT(difference, 0) << "no bf16";
  EXPECT_LT(difference, spread);
  std::cout << fmt::format("bf16 differs from fp32 by {:.4f} nats, seeds by {:.4f}\n", difference, spread);
}

TEST(TinyTextOnTheCpu, ASmallModelLearnsInBf16AsInFp32) {
  expect_same_curves(
      {"--step_scheduler.global_batch_size=4", "--step_scheduler.local_batch_size=4", "--dataset.seq_len=32",
       "--model.config.hidden_size=32", "--model.config.num_hidden_layers=2", "--model.config.num_attention_heads=2",
       "--model.config.num_key_value_heads=1", "--model.config.head_dim=16", "--model.config.num_experts=4",
       "--model.config.moe_intermediate_size=32"},
      hardware_of(DeviceKind::cpu, 2, 1));
}

TEST(SweepTinyText, TheExampleLearnsInBf16AsInFp32) {
  expect_same_curves({}, hardware_of(DeviceKind::cpu, 2, 1));
}

class TinyText : public testing::TestWithParam<GpuCase> {
 protected:
  void SetUp() override {
    if (!GetParam().missing.empty()) GTEST_SKIP() << GetParam().missing;
  }
};

TEST_P(TinyText, LearnsInBf16AsOnTheHostInFp32) {
  constexpr int kThreads = 4;
  constexpr int64_t kSteps = 200;
  constexpr double kTolerance = 0.02;
  const std::vector<double> host = losses({}, hardware_of(DeviceKind::cpu, kThreads, 1), kSteps);
  const std::vector<double> gpu = losses({"--runtime.device=cuda"}, GetParam().hardware, kSteps);
  const std::vector<double> expected = window_means(host), got = window_means(gpu);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(std::abs(got[i] - expected[i]) <= kTolerance * expected[i])
        << "window " << i << ": " << got[i] << " nats, on the host " << expected[i];
  }
  EXPECT_LT(gpu.back(), 0.6 * gpu.front());
}

INSTANTIATE_TEST_SUITE_P(Gpu, TinyText, testing::Values(real_gpu()),
                         [](const auto& instance) { return "bf16_on_" + instance.param.name; });

}  // namespace
}  // namespace sluice::test
