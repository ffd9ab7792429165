// What a configuration resolves to, where no run shows it.
#include "trainer/run_spec.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <tuple>

#include "support/training.h"

namespace sluice::test {
namespace {

// 12 layers in stages of 5 are 3 stages; of 2 ranks each then holds 2, or 1.
TEST(RunSpec, StagesOfARankAreRoundedAsAsked) {
  const auto chunks = [](int64_t layers, int64_t per_stage, int64_t pp, config::Rounding rounding) {
    config::Pipeline pipeline;
    pipeline.layers_per_stage = per_stage;
    pipeline.round_virtual_stages_to_pp_multiple = rounding;
    return chunks_per_rank(pipeline, layers, pp);
  };
  using enum config::Rounding;
  EXPECT_EQ(chunks(12, 5, 2, up), 2);
  EXPECT_EQ(chunks(12, 5, 2, down), 1);
  EXPECT_EQ(chunks(12, 3, 2, up), 2);
  EXPECT_EQ(chunks(12, 3, 2, down), 2);
  EXPECT_EQ(chunks(61, 4, 4, up), 4);
  EXPECT_EQ(chunks(61, 4, 4, down), 4);
  EXPECT_EQ(chunks(61, 3, 4, up), 6);
  EXPECT_EQ(chunks(61, 3, 4, down), 5);
  // There is at least one, and one alone without a pipeline.
  EXPECT_EQ(chunks(4, 4, 2, down), 1);
  EXPECT_EQ(chunks(12, 3, 1, up), 1);
}

// Without a pipeline a local batch is one micro-batch; in one it is cut into those of the pipeline.
TEST(RunSpec, MicroBatchesAreThePipelinesOrTheLocalBatches) {
  const std::vector<std::string> batches = {"--step_scheduler.global_batch_size=16",
                                            "--step_scheduler.local_batch_size=4"};
  const auto resolved = [&](std::vector<std::string> overrides, int ranks) {
    overrides.insert(overrides.end(), batches.begin(), batches.end());
    return resolve(tiny_config(overrides), ranks);
  };
  const RunSpec plain = resolved({}, 2);
  EXPECT_EQ(plain.sampling.micro_batch, 4);
  EXPECT_EQ(plain.sampling.micro_batches(), 2);
  EXPECT_EQ(plain.accumulation(), 2);
  const RunSpec pipelined = resolved({"--distributed.pp_size=2", "--distributed.pipeline.pp_microbatch_size=2"}, 4);
  EXPECT_EQ(pipelined.sampling.micro_batch, 2);
  EXPECT_EQ(pipelined.sampling.micro_batches(), 4);
  EXPECT_EQ(pipelined.accumulation(), 2);
  EXPECT_EQ(pipelined.tokens_per_step(), 16 * 16);
}

// The command decides whether the run trains; the recipe of its file, what is timed and planned.
TEST(RunSpec, WhatTrainsHasWhatTrainingNeedsWhateverItsRecipe) {
  const auto spec = [](const char* recipe, Purpose purpose, std::vector<std::string> more = {}) {
    more.push_back(fmt::format("--recipe={}", recipe));
    more.emplace_back("--runtime.device=cuda");
    more.emplace_back("--clip_grad_norm.max_norm=null");
    if (std::string(recipe) == "benchmark") more.emplace_back("--benchmark.warmup_steps=1");
    return resolve(tiny_config(more), 1, purpose);
  };
  for (const auto& [recipe, purpose, all] : {std::tuple{"benchmark", Purpose::train, true},
                                             {"benchmark", Purpose::run, false},
                                             {"benchmark", Purpose::plan, false},
                                             {"train", Purpose::train, true},
                                             {"train", Purpose::run, true},
                                             {"train", Purpose::plan, true}}) {
    const RunSpec resolved = spec(recipe, purpose);
    EXPECT_EQ(resolved.gradient_norm, all) << recipe;
    EXPECT_EQ(resolved.expert_load, all) << recipe;
    EXPECT_EQ(resolved.staging_bytes > 0, all && purpose != Purpose::run) << recipe << ": a benchmark saves nothing";
  }
  // A GPU's weights are saved by way of the host, in the background or not.
  EXPECT_GT(spec("benchmark", Purpose::train, {"--checkpoint.is_async=false"}).staging_bytes, 0U);
  EXPECT_EQ(spec("benchmark", Purpose::train, {"--checkpoint.enabled=false"}).staging_bytes, 0U);
}

}  // namespace
}  // namespace sluice::test
