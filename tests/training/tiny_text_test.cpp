// The first 200 steps of examples/pretrain/tiny_text.yaml on a GPU in bf16 beside those on the host in fp32: the same
// curve. Needs a GPU; on the host alone it takes half a minute.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "support/training.h"
#include "trainer/make_dataset.h"

namespace sluice::test {
namespace {

constexpr int64_t kSteps = 200;

std::vector<double> losses(const std::vector<std::string>& overrides, const Hardware& hardware) {
  Config config = config::load(std::string(SLUICE_SOURCE_DIR) + "/examples/pretrain/tiny_text.yaml");
  config::apply_overrides(config, overrides);
  const RunSpec spec = resolve(config, 1);
  const auto dataset = make_dataset(config, config.dataset, "dataset", spec);
  std::vector<double> list;
  run_session(spec, {.hardware = hardware}, *dataset, [&](Trainer& trainer) {
    for (int64_t step = 0; step < kSteps; ++step) list.push_back(trainer.step(step).loss);
  });
  return list;
}

class TinyText : public testing::TestWithParam<GpuCase> {
 protected:
  void SetUp() override {
    if (!GetParam().missing.empty()) GTEST_SKIP() << GetParam().missing;
  }
};

TEST_P(TinyText, LearnsInBf16AsOnTheHostInFp32) {
  constexpr int kThreads = 4;
  // Of means over so many steps: single batches differ more than that from one to the next.
  constexpr int64_t kWindow = 20;
  constexpr double kTolerance = 0.02;
  const std::vector<double> host = losses({}, hardware_of(DeviceKind::cpu, kThreads, 1));
  const std::vector<double> gpu = losses({"--runtime.device=cuda"}, GetParam().hardware);
  ASSERT_EQ(host.size(), static_cast<size_t>(kSteps));
  ASSERT_EQ(gpu.size(), host.size());
  const auto mean = [](const std::vector<double>& list, int64_t begin) {
    return std::accumulate(list.begin() + begin, list.begin() + begin + kWindow, 0.0) / kWindow;
  };
  for (int64_t begin = 0; begin + kWindow <= kSteps; begin += kWindow) {
    const double expected = mean(host, begin);
    EXPECT_TRUE(std::abs(mean(gpu, begin) - expected) <= kTolerance * expected)
        << "steps from " << begin << ": " << mean(gpu, begin) << " nats, on the host " << expected;
  }
  EXPECT_LT(gpu.back(), 0.6 * gpu.front());
}

INSTANTIATE_TEST_SUITE_P(Gpu, TinyText, testing::Values(real_gpu()),
                         [](const auto& instance) { return "bf16_on_" + instance.param.name; });

}  // namespace
}  // namespace sluice::test
