// Steps that go wrong: left out, or gone back from, with the numbers of a run that never met the bad batch.
#include <gtest/gtest.h>

#include <map>

#include "support/temporary_folder.h"
#include "support/training.h"
#include "training/resume.h"
#include "training/training.h"

namespace sluice::test {
namespace {

constexpr int64_t kBatch = 8, kBad = 9, kSteps = 14;

// Easy tokens, but in one global batch such as no other has.
class OneBadBatch final : public Dataset {
 public:
  void sample(std::int64_t id, std::span<std::int32_t> tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      tokens[i] = static_cast<int32_t>(id / kBatch == kBad ? 40 + (at * at + id) % 20 : 3 + at % 2);
    }
  }
  std::int64_t size() const override { return std::int64_t{1} << 50; }
  std::int64_t vocab_size() const override { return 64; }
  std::string identity() const override { return "easy tokens"; }
};

struct Trained {
  std::map<int64_t, double> losses;
  std::vector<int64_t> left_out, gone_back_to;
};

Trained train(const std::vector<std::string>& overrides, int ranks = 1) {
  std::vector<std::string> all = {"--optimizer.lr=0.01"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  const Config config = tiny_config(all);
  RunSpec spec = resolve(config, ranks);
  const OneBadBatch dataset;
  TrainingJob job = training_job(config, spec, dataset, nullptr);
  job.steps = kSteps;
  job.schedule = {.every = 4};
  const Folder place;
  const CheckpointFolder folder(place.path());
  const SaveOptions saving{.folder = &folder, .manifest = describe_run(config, dataset, "test")};
  job.saving = &saving;
  spec = with_steps(std::move(spec), config, kSteps);
  Trained run;
  TrainingEvents events;
  events.recorded = [&](const TrainRecord& record) {
    run.losses[record.step] = record.result->loss;
    if (record.left_out) run.left_out.push_back(record.step);
  };
  events.rolled_back = [&](int64_t step) { run.gone_back_to.push_back(step); };
  LaunchOptions session{.device = DeviceKind::ref};
  session.comm.timeout_s = 60;
  run_training(job, spec, session, events);
  return run;
}

// Trains on these batches alone, one step each.
std::vector<double> losses_of(const std::vector<int64_t>& batches) {
  const RunSpec spec = resolve(tiny_config({"--optimizer.lr=0.01"}), 1);
  const OneBadBatch dataset;
  std::vector<double> losses;
  run_session(spec, {.device = DeviceKind::ref}, dataset, [&](Trainer& trainer) {
    for (size_t i = 0; i < batches.size(); ++i) {
      const auto step = static_cast<int64_t>(i);
      losses.push_back(trainer.compute_gradients({.step = step, .update = step, .batch = batches[i]}).loss);
      trainer.update_weights();
    }
  });
  return losses;
}

const std::vector<std::string> spike = {"--bad_steps.spike_window=4", "--bad_steps.spike_deviations=5"};

std::vector<std::string> with(std::vector<std::string> list, const std::string& word) {
  list.push_back(word);
  return list;
}

TEST(BadSteps, ASpikeIsLeftOutWithoutATrace) {
  for (const int ranks : {1, 2}) {
    const Trained run = train(with(spike, "--bad_steps.spike=skip"), ranks);
    EXPECT_EQ(run.left_out, (std::vector<int64_t>{kBad + 1}));
    std::vector<int64_t> good;
    for (int64_t batch = 0; batch < kSteps; ++batch) {
      if (batch != kBad) good.push_back(batch);
    }
    const std::vector<double> expected = losses_of(good);
    for (size_t i = 0; i < good.size(); ++i) EXPECT_NEAR(run.losses.at(good[i] + 1), expected[i], 1e-12) << good[i];
  }
}

TEST(BadSteps, ARunGoesBackAndPassesOverTheBatch) {
  const Trained run = train(with(spike, "--bad_steps.spike=roll_back"));
  EXPECT_EQ(run.gone_back_to, (std::vector<int64_t>{8}));
  std::vector<int64_t> batches;
  for (int64_t batch = 0; batch <= kSteps; ++batch) {
    if (batch != kBad) batches.push_back(batch);
  }
  const std::vector<double> expected = losses_of(batches);
  ASSERT_EQ(run.losses.size(), static_cast<size_t>(kSteps));
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(run.losses.at(static_cast<int64_t>(i) + 1), expected[i]) << i;
}

TEST(BadSteps, OffMeansNothingIsJudged) {
  const Trained run = train(spike);
  EXPECT_TRUE(run.left_out.empty());
  EXPECT_TRUE(run.gone_back_to.empty());
}

std::string failure(const std::vector<std::string>& overrides) {
  try {
    train(overrides);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// Weights of 1e300 give nothing finite, whatever the batch.
TEST(BadSteps, WhatNeverGetsBetterEnds) {
  const std::vector<std::string> broken = {"--optimizer.lr=1e300", "--clip_grad_norm=null"};
  EXPECT_NE(failure(broken).find("is nan at step 2"), std::string::npos) << failure(broken);
  EXPECT_NE(
      failure(with(broken, "--bad_steps.non_finite=roll_back")).find("has gone back to the same checkpoint 10 times"),
      std::string::npos)
      << failure(with(broken, "--bad_steps.non_finite=roll_back"));
  const Trained skipping = train(with(broken, "--bad_steps.non_finite=skip"));
  EXPECT_EQ(skipping.left_out.size(), static_cast<size_t>(kSteps - 1));
}

}  // namespace
}  // namespace sluice::test
