// What a configuration makes of schedules, of groups of parameters and of the program it was written for, as far as a
// run's steps.
#include <gtest/gtest.h>

#include <cmath>

#include "config/load.h"
#include "config/support.h"
#include "support/training.h"
#include "trainer/make_dataset.h"
#include "training/training.h"

namespace sluice::test {
namespace {

RunSpec spec_of(const std::string& family, const std::vector<std::string>& overrides, int ranks = 1) {
  return resolve(tiny_config(overrides, family), ranks);
}

TrainingJob job_of(const Config& config) {
  const RunSpec spec = resolve(config, 1);
  return training_job(config, spec, *make_dataset(config, config.dataset, "dataset", spec), nullptr);
}

// 57 steps of 500: the rate reaches its minimum where the run ends, and warm-up is a tenth of it.
TEST(Schedules, EndWithTheData) {
  const Config config =
      tiny_config({"--step_scheduler.max_steps", "500", "--dataset.num_samples", "457", "--lr_scheduler",
                   "{lr_decay_style: cosine, lr_warmup_steps: null, min_lr: 1e-6, end_wd: 0.3, wd_incr_style: linear}"},
                  "qwen3_moe");
  const TrainingJob job = job_of(config);
  EXPECT_EQ(job.steps, 57);
  EXPECT_EQ(job.ended_by, "57 steps, not the 500 of max_steps: num_epochs 1 of 457 sequences, 8 a step");
  const RunSpec spec = with_steps(resolve(config, 1), config, job.steps);
  EXPECT_EQ(spec.steps, 57);
  EXPECT_EQ(spec.lr.warmup_steps, 5);
  EXPECT_EQ(spec.lr.at(5), 0.003);
  EXPECT_DOUBLE_EQ(spec.lr.at(57), 1e-6);
  EXPECT_LT(spec.lr.at(56), 1e-5);
  EXPECT_DOUBLE_EQ(spec.weight_decay.at(0), 0.1);
  EXPECT_DOUBLE_EQ(spec.weight_decay.at(57), 0.3);
  // What the file says about its steps stays.
  const Config fixed = tiny_config(
      {"--lr_scheduler", "{lr_decay_style: linear, lr_warmup_steps: 4, lr_decay_steps: 400, wd_incr_steps: 9}"},
      "qwen3_moe");
  const RunSpec given = with_steps(resolve(fixed, 1), fixed, 57);
  EXPECT_EQ(given.lr.warmup_steps, 4);
  EXPECT_EQ(given.lr.decay_steps, 400);
  EXPECT_EQ(given.weight_decay.steps, 9);
}

TEST(Schedules, WarmUpThatLeavesNothingIsRefusedOnceTheStepsAreKnown) {
  const Config config = tiny_config({"--step_scheduler.max_steps", "500", "--dataset.num_samples", "457",
                                     "--lr_scheduler", "{lr_decay_style: cosine, lr_warmup_steps: 60}"},
                                    "qwen3_moe");
  const RunSpec spec = resolve(config, 1);
  EXPECT_EQ(config::error_of([&] { with_steps(spec, config, 57); }).substr(0, 77),
            "command line: lr_warmup_steps 60 leaves none of the 57 steps to decay over\n  ");
}

TEST(Schedules, LengthsOfARun) {
  const auto steps = [](const std::vector<std::string>& overrides) {
    return job_of(tiny_config(overrides, "qwen3_moe")).steps;
  };
  EXPECT_EQ(steps({}), 20);
  EXPECT_EQ(steps({"--dataset.num_samples", "160"}), 20);
  EXPECT_EQ(steps({"--dataset.num_samples", "159"}), 19);
  EXPECT_EQ(steps({"--dataset.num_samples", "12"}), 1);
  EXPECT_EQ(steps({"--dataset.num_samples", "12", "--step_scheduler.num_epochs", "4"}), 6) << "48 sequences";
  EXPECT_EQ(steps({"--dataset.num_samples", "12", "--step_scheduler.num_epochs", "null"}), 20);
  EXPECT_EQ(steps({"--dataset.num_samples", "1"}), 1);
  EXPECT_EQ(steps({"--dataset.num_samples", "90", "--step_scheduler.max_steps", "null"}), 11);
  EXPECT_EQ(
      job_of(tiny_config({"--dataset.num_samples", "90", "--step_scheduler.max_steps", "null"}, "qwen3_moe")).ended_by,
      "11 steps: num_epochs 1 of 90 sequences, 8 a step");
  EXPECT_EQ(config::error_of([&] { steps({"--step_scheduler.max_steps", "null"}); }),
            "step_scheduler.max_steps is not given, and mock data has no end\n"
            "       set step_scheduler.max_steps, or dataset.num_samples");
  // NeMo counts the batches of each data-parallel rank.
  EXPECT_EQ(steps({"--dataset.num_samples", "40", "--dataset.num_samples_are", "batches"}), 5);
}

TEST(Schedules, MaxLrIsThePeak) {
  const RunSpec spec = spec_of("qwen3_moe", {"--lr_scheduler", "{max_lr: 0.5, init_lr: 0.1, lr_warmup_steps: 2}"});
  EXPECT_EQ(spec.lr.at(0), 0.1);
  EXPECT_DOUBLE_EQ(spec.lr.at(1), 0.3);
  EXPECT_EQ(spec.lr.at(2), 0.5);
}

// Adam in torch decays through the gradient; FusedAdam says which.
TEST(Schedules, TheOptimizersKind) {
  const auto coupled = [](const std::string& section) {
    return spec_of("qwen3_moe", {"--optimizer", section}).optimizer.coupled_decay;
  };
  EXPECT_FALSE(coupled("{_target_: AdamW}"));
  EXPECT_TRUE(coupled("{_target_: Adam}"));
  EXPECT_TRUE(coupled("{_target_: torch.optim.Adam}"));
  EXPECT_TRUE(coupled("{_target_: FusedAdam, adam_w_mode: false}"));
  EXPECT_FALSE(coupled("{_target_: FusedAdam}"));
  const auto state = [](const std::string& dtype, const std::string& kind) {
    const Config config = tiny_config({"--runtime.dtype", dtype, "--optimizer.state_dtype", kind}, "qwen3_moe");
    return state_dtype_of(config, resolve(config, 1, Purpose::plan).dtype);
  };
  EXPECT_EQ(state("f32", "weights"), DType::f32);
  EXPECT_EQ(state("bf16", "weights"), DType::bf16);
  EXPECT_EQ(state("bf16", "fp32"), DType::f32);
}

// Weights whose step is multiplied by 0 stay: the rows of the key projection alone, which are a part of a parameter.
TEST(Schedules, OverridesReachPartsOfAParameter) {
  const std::vector<std::string> overrides = {
      "--optimizer.param_group_overrides",
      "[{pattern: 'layers\\.1\\..*k_proj', lr_mult: 0}, {pattern: 'k_proj|v_proj'}]", "--optimizer.decay_parameters",
      "all"};
  const Layout one{.name = "one", .overrides = overrides};
  const Training begun = train(one, {.steps = 0}), trained = train(one, {.steps = 3});
  const RunSpec spec = spec_of("qwen3_moe", overrides);
  const int64_t hidden = spec.model.hidden_size, q = spec.model.num_heads * spec.model.head_dim * hidden;
  const int64_t k = spec.model.num_kv_heads * spec.model.head_dim * hidden;
  for (const auto& [name, values] : trained.weights) {
    for (size_t i = 0; i < values.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      const bool held = name == "layers.1.attention.qkv.weight" && at >= q && at < q + k;
      if (held) {
        ASSERT_EQ(values[i], begun.weights.at(name)[i]) << name << " " << i;
      } else if (name.find("qkv") != std::string::npos) {
        ASSERT_NE(values[i], begun.weights.at(name)[i]) << name << " " << i;
      }
    }
  }
  EXPECT_EQ(
      unmatched_patterns(
          tiny_config({"--optimizer.param_group_overrides", "[{pattern: nowhere}, {pattern: lm_head}]"}, "qwen3_moe"),
          spec.model),
      std::vector<std::string>{"nowhere"});
}

TEST(Schedules, BalanceOfNemosFiles) {
  EXPECT_EQ(spec_of("gpt_oss", {}).aux_loss_coef, 0);
  EXPECT_EQ(spec_of("gpt_oss", {"--model.aux_loss_of_config", "true"}).aux_loss_coef, 0.9);
  EXPECT_EQ(spec_of("gpt_oss", {"--model.aux_loss_of_config", "true", "--model.config.router_aux_loss_coef", "0.2"})
                .aux_loss_coef,
            0.2);
  EXPECT_EQ(spec_of("gpt_oss", {"--model.aux_loss_of_config", "true", "--model.aux_loss_coef", "0.1"}).aux_loss_coef,
            0.1);
  EXPECT_EQ(spec_of("qwen3_moe", {}).aux_loss_coef,
            spec_of("qwen3_moe", {"--model.aux_loss_of_config", "true"}).aux_loss_coef);
  EXPECT_EQ(spec_of("deepseek_v3", {}).selection_bias_rate, 1e-3);
  EXPECT_EQ(spec_of("deepseek_v3", {"--model.gate_bias_update_factor", "0"}).selection_bias_rate, 0);
}

}  // namespace
}  // namespace sluice::test
