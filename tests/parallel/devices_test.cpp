// Training on a GPU that ranks share, held to plain loops on one rank: as exactly as in f64 on the host, and in the
// storage types that GPUs train in.
#include <gtest/gtest.h>

#include "support/training.h"

namespace sluice::test {
namespace {

struct Case {
  Layout layout;
  GpuCase gpu;
  friend std::ostream& operator<<(std::ostream& out, const Case& c) {
    return out << c.layout.name << " on " << c.gpu.name;
  }
};

Layout one_rank() {
  return {"one", 1, {}};
}

std::vector<Layout> layouts() {
  const std::string pp2 = "--distributed.pp_size=2", ep2 = "--distributed.ep_size=2";
  return {one_rank(),
          {"fsdp4_reshard", 4, {"--distributed.moe.reshard_after_forward=true"}},
          {"hsdp2x2", 4, {"--distributed.dp_replicate_size=2"}},
          {"ep4_shard2", 8, {"--distributed.ep_size=4"}},
          {"pp2_ep2_fsdp2", 8, {pp2, ep2, "--step_scheduler.local_batch_size=2"}},
          {"zb_h1_pp2_ep2",
           4,
           {pp2, ep2, "--step_scheduler.local_batch_size=4", "--distributed.pipeline.pp_schedule=zb_h1"}}};
}

std::vector<Case> cases(const std::vector<Layout>& list) {
  std::vector<Case> all;
  for (const GpuCase& gpu : {emulated_gpu(), real_gpu()}) {
    for (const Layout& layout : list) all.push_back({layout, gpu});
  }
  return all;
}

class OnGpu : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!GetParam().gpu.missing.empty()) GTEST_SKIP() << GetParam().gpu.missing;
  }

  static Training train_as(const Layout& layout, const std::vector<std::string>& overrides,
                           const TrainingOptions& options) {
    Layout changed = layout;
    changed.overrides.insert(changed.overrides.end(), overrides.begin(), overrides.end());
    return train(changed, options);
  }
};

std::string name_of(const testing::TestParamInfo<Case>& instance) {
  return instance.param.layout.name + "_on_" + instance.param.gpu.name;
}

class GpuEquivalence : public OnGpu {};

TEST_P(GpuEquivalence, LossesAndWeightsAreThoseOfOneRankOnTheHost) {
  constexpr double kLossTolerance = 1e-10, kWeightTolerance = 1e-9;
  for (const std::string balance : {"router", "skewed"}) {
    SCOPED_TRACE(balance);
    const std::vector<std::string> routing{"--benchmark.balance=" + balance, "--benchmark.skew=3.5"};
    const Training host = train_as(one_rank(), routing, {.steps = 2});
    const Training gpu = train_as(GetParam().layout, routing, {.hardware = GetParam().gpu.hardware, .steps = 2});
    const TrainingDifference difference = compare(host, gpu);
    EXPECT_TRUE(difference.loss <= kLossTolerance) << "loss differs by " << difference.loss;
    EXPECT_TRUE(difference.weight <= kWeightTolerance) << difference.worst_weight << " by " << difference.weight;
    EXPECT_GT(compare(train_as(one_rank(), routing, {.steps = 0}), gpu).weight, 1e-2) << "nothing was learned";
    EXPECT_EQ(host.loads, gpu.loads);
  }
}
INSTANTIATE_TEST_SUITE_P(Layouts, GpuEquivalence, testing::ValuesIn(cases(layouts())), name_of);

class GpuStorage : public OnGpu {};

// Steps small enough that two runs stay together: what differs is rounding, not what is learned.
TEST_P(GpuStorage, LossesAreThoseOfTheHostInFp32) {
  const std::vector<std::string> settings{"--benchmark.balance=published", "--optimizer.lr=0.0003"};
  const auto with = [&](const std::string& dtype) {
    std::vector<std::string> all = settings;
    all.push_back("--runtime.dtype=" + dtype);
    return all;
  };
  const Training host = train_as(one_rank(), with("f32"), {.steps = 2});
  struct Storage {
    std::string dtype;
    double tolerance;
  };
  // A loss is a mean over 128 tokens of what some twenty rounded values in a row made.
  for (const Storage& storage : {Storage{"f32", 1e-5}, Storage{"bf16", 20 * 0x1p-8 / 4}}) {
    SCOPED_TRACE(storage.dtype);
    std::vector<std::string> overrides = with(storage.dtype);
    if (storage.dtype == "bf16") overrides.emplace_back("--runtime.device=cuda");
    const Training gpu = train_as(GetParam().layout, overrides, {.hardware = GetParam().gpu.hardware, .steps = 2});
    EXPECT_TRUE(compare(host, gpu).loss <= storage.tolerance) << compare(host, gpu).loss;
    EXPECT_LT(gpu.losses.back(), gpu.losses.front());
  }
}
INSTANTIATE_TEST_SUITE_P(Layouts, GpuStorage,
                         testing::ValuesIn(cases({one_rank(), {"ep2", 2, {"--distributed.ep_size=2"}}})), name_of);

}  // namespace
}  // namespace sluice::test
