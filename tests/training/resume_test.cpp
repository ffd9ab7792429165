// What may differ when a run goes on, and what its schedule keeps.
#include "training/resume.h"

#include <gtest/gtest.h>

#include "data/mock.h"
#include "support/training.h"

namespace sluice::test {
namespace {

Manifest described(const std::vector<std::string>& overrides) {
  const Config config = tiny_config(overrides);
  return describe_run(config, MockDataset(7, 64), "test");
}

TEST(ResumeConflicts, ListedKeysMayDiffer) {
  const Manifest saved = described({"--runtime.dtype=f32"});
  EXPECT_TRUE(resume_conflicts(saved, saved).empty());
  for (const char* change :
       {"--step_scheduler.max_steps=90", "--optimizer.lr=0.1", "--logging.every=5", "--distributed.pp_size=2",
        "--step_scheduler.local_batch_size=2", "--memory.recompute=full", "--runtime.device=ref", "--runtime.threads=3",
        "--checkpoint.checkpoint_dir=x", "--runtime.dtype=bf16", "--lr_scheduler.lr_decay_steps=7"}) {
    EXPECT_EQ(describe_conflicts(resume_conflicts(saved, described({"--runtime.dtype=f32", change}))), "") << change;
  }
}

TEST(ResumeConflicts, OthersAreNamedWithBothValues) {
  const Manifest saved = described({"--runtime.dtype=f32"});
  const auto conflict = [&](const std::string& change) {
    return describe_conflicts(resume_conflicts(saved, described({"--runtime.dtype=f32", change})));
  };
  EXPECT_EQ(conflict("--optimizer.eps=0.5"), "optimizer.eps is 0.0001 in the checkpoint and 0.5 here");
  EXPECT_EQ(conflict("--seed=8"), "seed is 7 in the checkpoint and 8 here");
  EXPECT_EQ(conflict("--model.config.rope_theta=5.0"), "model.config.rope_theta is 10000 in the checkpoint and 5 here");
  EXPECT_EQ(conflict("--runtime.dtype=f64"), "runtime.dtype is f32 in the checkpoint and f64 here");
  EXPECT_EQ(conflict("--step_scheduler.global_batch_size=16"),
            "step_scheduler.global_batch_size is 8 in the checkpoint and 16 here");
  // bf16 moments have no fp32 masters.
  const Manifest narrow = described({"--runtime.dtype=f32", "--optimizer.state_dtype=bf16"});
  const Manifest other = described({"--runtime.dtype=bf16", "--optimizer.state_dtype=bf16"});
  EXPECT_EQ(resume_conflicts(narrow, other).size(), 1U);
  Manifest data = saved;
  data.identity["dataset"] = "12 bytes of text";
  EXPECT_EQ(resume_conflicts(saved, data).front().key, "dataset");
}

TEST(Resume, TheScheduleKeepsItsHorizon) {
  const Config config = tiny_config({"--lr_scheduler.lr_decay_style=cosine", "--lr_scheduler.lr_warmup_steps=2"});
  const RunSpec spec = resolve(config, 1);
  const RunSpec first = with_steps(spec, config, 10), longer = with_steps(spec, config, 30, first.horizon);
  EXPECT_EQ(longer.steps, 30);
  for (int64_t step = 0; step < 10; ++step) EXPECT_EQ(longer.lr.at(step), first.lr.at(step)) << step;
  EXPECT_EQ(longer.lr.at(25), first.lr.at(10)) << "the end of the decay";
  Config given = config;
  config::apply_overrides(given, std::vector<std::string>{"--lr_scheduler.lr_decay_steps=30"});
  const RunSpec other = with_steps(spec, given, 30, first.horizon);
  EXPECT_NE(other.lr.at(9), first.lr.at(9));
  // What was given once stays, also where it is not given again.
  const RunSpec later = with_steps(spec, config, 40, other.horizon);
  for (int64_t step = 0; step < 40; ++step) EXPECT_EQ(later.lr.at(step), other.lr.at(step)) << step;
}

TEST(Resume, OtherDataOfTheValidationAreAConflict) {
  const Config config = tiny_config({});
  const MockDataset data(7, 64), one(1, 64), two(2, 64);
  const Manifest saved = describe_run(config, data, "test", &one), without = describe_run(config, data, "test");
  EXPECT_TRUE(resume_conflicts(saved, describe_run(config, data, "test", &one)).empty());
  const auto conflicts = resume_conflicts(saved, describe_run(config, data, "test", &two));
  ASSERT_EQ(conflicts.size(), 1U);
  EXPECT_EQ(conflicts.front().key, "validation_dataset");
  EXPECT_TRUE(resume_conflicts(without, saved).empty()) << "of an earlier version";
}

}  // namespace
}  // namespace sluice::test
