// The published rows at their own layout: every column of theirs, and the losses of one rank.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "config/load.h"
#include "trainer/scale_config.h"
#include "training/benchmark.h"

namespace sluice {
namespace {

Config row_file(const std::string& name) {
  Config config = config::load(std::string(SLUICE_SOURCE_DIR) + "/examples/benchmark/configs/" + name + ".yaml");
  config::apply_overrides(config, std::vector<std::string>{"--runtime.threads", "2"});
  return config;
}

BenchmarkRow run(const Config& config, int ranks) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> null{std::fopen("/dev/null", "w"), std::fclose};
  Progress progress(null.get(), 0, "");
  MachineInfo machine;
  machine.peak_gflops = machine.bandwidth_gbs = 1;
  return run_benchmark({.config = "row.yaml", .scale = "tiny", .settings = config, .profile_ops = false},
                       resolve(config, ranks), machine, progress);
}

// The same model, samples and steps without any parallel axis.
Config on_one_rank(Config config) {
  const auto set = [&](const char* key, const std::string& value) {
    config::set(config, key, value, config::Origin::rule("one rank"));
  };
  const int64_t micro_batch = config.distributed.pp_size > 1 ? config.distributed.pipeline.pp_microbatch_size
                                                             : config.step_scheduler.local_batch_size;
  set("distributed.ep_size", "1");
  if (config.distributed.pp_size > 1) {
    set("distributed.pipeline.pp_schedule", "1f1b");
    set("distributed.pipeline.virtual_stages", "null");
    set("distributed.pp_size", "1");
  }
  set("step_scheduler.local_batch_size", std::to_string(micro_batch));
  return config;
}

class RowLayout : public ::testing::TestWithParam<const char*> {
 protected:
  void check() {
    const Config row = row_file(GetParam());
    const Config config = scale_within_layout(row, Scale::tiny).config;
    const config::Published& published = row.benchmark.published;
    const BenchmarkRow here = run(config, ranks_of(row));
    const Layout& l = here.layout;
    EXPECT_EQ(l.ranks, published.gpus);
    EXPECT_EQ(l.gbs, published.gbs);
    EXPECT_EQ(l.mbs, published.mbs);
    EXPECT_EQ(l.lbs, published.lbs);
    EXPECT_EQ(l.ga, published.ga);
    EXPECT_EQ(l.tp, published.tp);
    EXPECT_EQ(l.pp, published.pp);
    EXPECT_EQ(l.cp, published.cp);
    EXPECT_EQ(l.ep, published.ep.value_or(row.distributed.ep_size));
    EXPECT_EQ(l.vp, published.vp.value_or(0));
    EXPECT_EQ(l.fsdp, published.fsdp);
    EXPECT_EQ(here.max_memory_bytes, here.planned_memory_bytes);

    const BenchmarkRow one = run(on_one_rank(config), 1);
    EXPECT_EQ(one.layout.gbs, l.gbs);
    ASSERT_EQ(here.losses.size(), one.losses.size());
    for (size_t i = 0; i < one.losses.size(); ++i) {
      // Sums over a step's tokens in fp32, added in another order: a millionth of the loss is a wide margin.
      EXPECT_TRUE(std::abs(here.losses[i] - one.losses[i]) <= 1e-6 * one.losses[i])
          << "step " << i + 1 << ": " << here.losses[i] << " on one rank " << one.losses[i];
      EXPECT_NEAR(one.losses[i], std::log(256), 0.2);
    }
  }
};

TEST_P(RowLayout, HasEveryPublishedColumnAndTheLossesOfOneRank) {
  check();
}
INSTANTIATE_TEST_SUITE_P(Rows, RowLayout, ::testing::Values("qwen3_moe_30b_8", "gpt_oss_20b_8", "gpt_oss_120b_64"),
                         [](const auto& row) { return std::string(row.param); });

class RowLayoutSweep : public RowLayout {};
TEST_P(RowLayoutSweep, HasEveryPublishedColumnAndTheLossesOfOneRank) {
  check();
}
INSTANTIATE_TEST_SUITE_P(Rows, RowLayoutSweep, ::testing::Values("deepseek_v3_1024", "deepseek_v3_256", "kimi_k2_256"),
                         [](const auto& row) { return std::string(row.param); });

}  // namespace
}  // namespace sluice
