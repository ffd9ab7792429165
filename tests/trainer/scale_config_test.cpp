#include "trainer/scale_config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "model/family.h"
#include "trainer/layout.h"

namespace sluice {
namespace {

const std::string row_file = std::string(SLUICE_SOURCE_DIR) + "/examples/benchmark/configs/qwen3_moe_30b_8.yaml";

Config row(const std::vector<std::string>& overrides = {}) {
  Config config = config::load(row_file);
  config::apply_overrides(config, overrides);
  return config;
}

// The row as if it had been laid out over a deep pipeline; as in a file, not by hand.
Config pipelined_row() {
  Config config = row();
  const auto set = [&](const char* key, const char* value) {
    config::set(config, key, value, {config::Origin::Kind::file, "row.yaml:1"});
  };
  set("distributed.pp_size", "4");
  set("distributed.ep_size", "64");
  set("distributed.pipeline.pp_schedule", "interleaved1f1b");
  set("distributed.pipeline.virtual_stages", "4");
  set("distributed.pipeline.pp_microbatch_size", "1");
  set("step_scheduler.local_batch_size", "8");
  return config;
}

Layout layout(const ScaledConfig& scaled, int ranks) {
  return layout_of(resolve(scaled.config, ranks));
}

// Tokens of a dataset that says how many there are stay within the smaller model.
TEST(ScaleConfig, TheDatasetsVocabularyShrinksWithTheModels) {
  const ScaledConfig scaled = scale_config(row({"--dataset.vocab_size", "100000"}), Scale::tiny, 1);
  EXPECT_EQ(scaled.config.dataset.vocab_size, 100000) << "given by hand";
  Config config = row();
  config::set(config, "dataset.vocab_size", "100000", {config::Origin::Kind::file, "row.yaml:1"});
  EXPECT_EQ(scale_config(config, Scale::tiny, 1).config.dataset.vocab_size, 256);
}

TEST(ScaleConfig, TheRowOnOneRankAtLaptopScale) {
  const ScaledConfig scaled = scale_config(row(), Scale::laptop, 1);
  const Layout l = layout(scaled, 1);
  EXPECT_EQ(l.gbs, 32);
  EXPECT_EQ(l.mbs, 4);
  EXPECT_EQ(l.ga, 8);
  EXPECT_EQ(l.seq_len, 512);
  EXPECT_EQ(l.ep, 1);
  EXPECT_EQ(l.fsdp, 1);
  const RunSpec spec = resolve(scaled.config, 1);
  EXPECT_EQ(spec.steps, 7);
  EXPECT_EQ(scaled.config.benchmark.warmup_steps, 2);
  EXPECT_EQ(scaled.config.benchmark.peak_tflops, std::nullopt);
  EXPECT_GE(param_count(spec.model).total, 5'000'000);
  EXPECT_EQ(spec.model.num_experts % 8, 0) << "each rank of the row's ep owns experts";
  EXPECT_TRUE(spec.recompute.full) << "what the row recomputes stays";
  EXPECT_EQ(spec.optimizer.state_dtype, DType::bf16);
}

TEST(ScaleConfig, ChangesNameOldAndNewValue) {
  const auto changes = scale_config(row(), Scale::laptop, 1).changes;
  const auto find = [&](const std::string& key) {
    const auto found = std::ranges::find(changes, key, &config::Change::key);
    return found == changes.end() ? "unchanged" : found->before + " -> " + found->after;
  };
  EXPECT_EQ(find("model.config.hidden_size"), "2048 -> 256");
  EXPECT_EQ(find("dataset.seq_len"), "4096 -> 512");
  EXPECT_EQ(find("step_scheduler.global_batch_size"), "512 -> 32");
  EXPECT_EQ(find("distributed.ep_size"), "8 -> 1");
  EXPECT_EQ(find("benchmark.peak_tflops"), "989 -> null");
  EXPECT_EQ(find("step_scheduler.local_batch_size"), "unchanged");
}

TEST(ScaleConfig, WithoutAScaleOnlyDegreesChange) {
  const auto changes = scale_config(row(), std::nullopt, 2).changes;
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_EQ(changes[0].key, "distributed.ep_size");
  EXPECT_EQ(changes[0].after, "2");
}

TEST(ScaleConfig, DegreesAreTheLargestDivisors) {
  const auto degrees = [](int ranks) {
    const Layout l = layout(scale_config(pipelined_row(), Scale::tiny, ranks), ranks);
    return std::vector<int64_t>{l.pp, l.ep, l.fsdp, l.vp};
  };
  EXPECT_EQ(degrees(1), (std::vector<int64_t>{1, 1, 1, 0}));
  EXPECT_EQ(degrees(2), (std::vector<int64_t>{2, 1, 1, 4}));
  EXPECT_EQ(degrees(4), (std::vector<int64_t>{4, 1, 1, 4}));
  EXPECT_EQ(degrees(6), (std::vector<int64_t>{3, 2, 2, 4}));
  EXPECT_EQ(degrees(8), (std::vector<int64_t>{4, 2, 2, 4}));
  // 12 experts-parallel candidates of 48 ranks' stages: 64 experts (tiny) allow 4.
  EXPECT_EQ(degrees(48), (std::vector<int64_t>{4, 4, 12, 4}));
}

// As NeMo's files say it: 48 layers in stages of 3 are 16, 4 on each of 4 ranks.
Config row_of_layers_per_stage() {
  Config config = pipelined_row();
  for (const auto& [key, value] : std::map<std::string, const char*>{
           {"virtual_stages", "null"}, {"layers_per_stage", "3"}, {"round_virtual_stages_to_pp_multiple", "down"}}) {
    config::set(config, "distributed.pipeline." + key, value, {config::Origin::Kind::file, "row.yaml:1"});
  }
  return config;
}

TEST(ScaleConfig, StagesOnARankStayWhereLayersPerStageGivesThem) {
  for (const int ranks : {1, 2, 4, 8}) {
    const Layout stated = layout(scale_config(pipelined_row(), Scale::tiny, ranks), ranks);
    const Layout derived = layout(scale_config(row_of_layers_per_stage(), Scale::tiny, ranks), ranks);
    EXPECT_EQ(derived.pp, stated.pp) << ranks;
    EXPECT_EQ(derived.vp, stated.vp) << ranks;
  }
  const auto changes = scale_config(row_of_layers_per_stage(), Scale::tiny, 4).changes;
  EXPECT_TRUE(std::ranges::any_of(changes, [](const config::Change& c) {
    return c.key == "distributed.pipeline.virtual_stages" && c.before == "null" && c.after == "4";
  }));
  EXPECT_EQ(scale_config(row_of_layers_per_stage(), std::nullopt, 4).config.distributed.pipeline.layers_per_stage, 3);
}

TEST(ScaleConfig, EveryNumberOfRanksRuns) {
  int cases = 0;
  for (const Config& config : {row(), pipelined_row(), row_of_layers_per_stage()}) {
    for (const auto scale : {Scale::laptop, Scale::tiny}) {
      for (int ranks = 1; ranks <= 32; ++ranks) {
        const ScaledConfig scaled = scale_config(config, scale, ranks);
        ASSERT_NO_THROW(layout(scaled, ranks)) << ranks << " ranks";
        const Layout l = layout(scaled, ranks);
        EXPECT_GE(l.gbs / (l.mbs * (ranks / l.pp)), 1) << "a micro-batch for each data-parallel rank";
        EXPECT_EQ(l.ga * l.lbs * (ranks / l.pp), l.gbs);
        ++cases;
      }
    }
  }
  EXPECT_EQ(cases, 192);
}

TEST(ScaleConfig, EveryBenchmarkOfTheRepositoryIsAModelAndFitsItsRanks) {
  int files = 0;
  for (const char* folder : {"/examples/benchmark/configs", "/benchmarks/configs"}) {
    for (const auto& entry : std::filesystem::directory_iterator(std::string(SLUICE_SOURCE_DIR) + folder)) {
      SCOPED_TRACE(entry.path().string());
      const Config config = config::load(entry.path());
      EXPECT_NO_THROW(resolve(config, ranks_of(config), Purpose::plan));
      EXPECT_NO_THROW(resolve(scale_config(config, Scale::tiny, 1).config, 1));
      ++files;
    }
  }
  EXPECT_GE(files, 14);
}

TEST(ScaleConfig, AShardOfARowScalesAsTheRowDoes) {
  const std::string folder = std::string(SLUICE_SOURCE_DIR) + "/examples/benchmark/configs/";
  const Config shard = config::load(folder + "qwen3_moe_30b_1gpu.yaml");
  const auto spec_of = [](const Config& config) { return resolve(scale_config(config, Scale::laptop, 1).config, 1); };
  const RunSpec whole = spec_of(row()), part = spec_of(shard);
  EXPECT_EQ(part.local_shard, row().distributed.ep_size);
  EXPECT_EQ(part.model, whole.model);
  EXPECT_EQ(part.sampling.micro_batch, whole.sampling.micro_batch);
  EXPECT_EQ(spec_of(config::load(folder + "qwen3_moe_30b_1gpu_all_experts.yaml")).local_shard, 1);
}

TEST(ScaleConfig, WhatIsGivenByHandStays) {
  const ScaledConfig scaled =
      scale_config(row({"--distributed.ep_size", "4", "--model.config.hidden_size", "512", "--dataset.seq_len", "128",
                        "--step_scheduler.global_batch_size", "64", "--step_scheduler.max_steps", "3"}),
                   Scale::laptop, 8);
  const RunSpec spec = resolve(scaled.config, 8);
  EXPECT_EQ(spec.mesh.ep, 4);
  EXPECT_EQ(spec.model.hidden_size, 512);
  EXPECT_EQ(spec.seq_len, 128);
  EXPECT_EQ(spec.sampling.global_batch, 64);
  EXPECT_EQ(spec.steps, 3);
  EXPECT_EQ(scaled.config.origin("distributed.ep_size").kind, config::Origin::Kind::command_line);
  EXPECT_EQ(scaled.config.origin("step_scheduler.local_batch_size").kind, config::Origin::Kind::file);
}

TEST(ScaleConfig, ChangedValuesSayWhy) {
  const Config config = scale_config(row(), Scale::tiny, 2).config;
  EXPECT_EQ(config.origin("dataset.seq_len").text, "scale tiny");
  EXPECT_EQ(config.origin("distributed.ep_size").text, "2 ranks");
}

TEST(RanksOf, ThePublishedOnesOrTheFewestThatDo) {
  EXPECT_EQ(ranks_of(row()), 8);
  const auto own = [](const std::vector<std::string>& overrides) {
    Config config;
    config::apply_overrides(config, overrides);
    return ranks_of(config);
  };
  EXPECT_EQ(own({}), 1);
  EXPECT_EQ(own({"--distributed.ep_size", "4"}), 4);
  EXPECT_EQ(own({"--distributed.pp_size", "2", "--distributed.ep_size", "4"}), 8);
  EXPECT_EQ(own({"--distributed.dp_size", "6", "--distributed.pp_size", "2"}), 12);
}

}  // namespace
}  // namespace sluice
