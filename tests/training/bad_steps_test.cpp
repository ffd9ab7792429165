// Steps that go wrong: left out, or gone back from, with the numbers of a run that never met the bad batch.
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
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
  std::string failure = {};
};

struct Attempt {
  std::vector<std::string> overrides;
  int ranks = 1;
  int64_t steps = kSteps;
  std::function<bool(const Trained&)> killed = {};  // asked after each step, and when the run has gone back
};

// Goes on from the newest checkpoint of the place, if there is one.
Trained train(const Attempt& attempt, const Folder& place) {
  std::vector<std::string> all = {"--optimizer.lr=0.01"};
  all.insert(all.end(), attempt.overrides.begin(), attempt.overrides.end());
  const Config config = tiny_config(all);
  RunSpec spec = resolve(config, attempt.ranks);
  const OneBadBatch dataset;
  TrainingJob job = training_job(config, spec, dataset, nullptr);
  job.steps = attempt.steps;
  job.schedule = {.every = 4};
  const CheckpointFolder folder(place.path());
  const SaveOptions saving{.folder = &folder, .manifest = describe_run(config, dataset, "test")};
  job.saving = &saving;
  std::optional<Checkpoint> resumed;
  if (const auto found = find_checkpoints(place.path()); !found.empty())
    job.resumed = &resumed.emplace(found.back().path);
  spec = with_steps(std::move(spec), config, attempt.steps);
  Trained run;
  const auto moment = [&] {
    if (attempt.killed && attempt.killed(run)) throw runtime_failure("killed");
  };
  TrainingEvents events;
  events.recorded = [&](const TrainRecord& record) {
    run.losses[record.step] = record.result->loss;
    if (record.left_out) run.left_out.push_back(record.step);
    moment();
  };
  events.rolled_back = [&](int64_t step) {
    run.gone_back_to.push_back(step);
    moment();
  };
  LaunchOptions session{.device = DeviceKind::ref};
  session.comm.timeout_s = 60;
  try {
    run_training(job, spec, session, events);
  } catch (const Error& error) {
    run.failure = error.what();
  }
  return run;
}

Trained train(const std::vector<std::string>& overrides, int ranks = 1) {
  const Folder place;
  return train({.overrides = overrides, .ranks = ranks}, place);
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

void expect_failure(const Trained& run, const std::string& what) {
  EXPECT_NE(run.failure.find(what), std::string::npos) << run.failure;
}

// Weights of 1e300 give nothing finite, whatever the batch: all steps after the first one are bad.
const std::vector<std::string> broken = {"--optimizer.lr=1e300", "--clip_grad_norm=null"};
const std::vector<std::string> skipping = with(broken, "--bad_steps.non_finite=skip"),
                               going_back = with(broken, "--bad_steps.non_finite=roll_back");

TEST(BadSteps, WhatNeverGetsBetterEnds) {
  expect_failure(train(broken), "is nan at step 2");
  expect_failure(train(going_back), "has gone back to the same checkpoint 10 times");
  EXPECT_EQ(train(skipping).left_out.size(), static_cast<size_t>(kSteps - 1));
}

TEST(BadSteps, TwentyInARowEndTheRunAcrossResumesToo) {
  const Folder whole, parts;
  const Attempt attempt{.overrides = skipping, .steps = 60};
  const Trained run = train(attempt, whole);
  expect_failure(run, "step 22: ");
  expect_failure(run, "20 steps in a row are left out now");
  EXPECT_EQ(run.left_out.size(), 20U);
  Attempt killed = attempt;
  for (const int64_t step : {7, 14, 15}) {
    killed.killed = [step](const Trained& so_far) { return so_far.losses.contains(step); };
    expect_failure(train(killed, parts), "killed");
  }
  expect_failure(train(attempt, parts), "step 22: ");
  // Something was done about it: after the checkpoint of step 20, whose save ended, come twenty again.
  Attempt other = attempt;
  other.overrides[0] = "--optimizer.lr=1e299";
  expect_failure(train(other, parts), "step 41: ");
}

TEST(BadSteps, TenTimesBackEndTheRunAcrossKillsToo) {
  const Folder place;
  const Attempt attempt{.overrides = going_back};
  Attempt killed = attempt;
  killed.killed = [](const Trained& run) { return run.gone_back_to.size() == 4; };
  expect_failure(train(killed, place), "killed");
  expect_failure(train(killed, place), "killed");
  const Trained rest = train(attempt, place);
  EXPECT_EQ(rest.gone_back_to.size(), 2U);
  expect_failure(rest, "has gone back to the same checkpoint 10 times");
  Attempt other = attempt;
  other.overrides[0] = "--optimizer.lr=1e299";
  EXPECT_EQ(train(other, place).gone_back_to.size(), 10U);
}

TEST(BadSteps, ARunThatIsKilledAfterItWentBackDoesNotMeetTheBatchAgain) {
  const std::vector<std::string> rules = with(spike, "--bad_steps.spike=roll_back");
  const Trained whole = train(rules);
  const Folder place;
  Attempt attempt{.overrides = rules};
  attempt.killed = [](const Trained& run) { return !run.gone_back_to.empty(); };
  expect_failure(train(attempt, place), "killed");
  attempt.killed = {};
  const Trained rest = train(attempt, place);
  EXPECT_EQ(rest.failure, "");
  EXPECT_TRUE(rest.gone_back_to.empty());
  ASSERT_EQ(rest.losses.size(), static_cast<size_t>(kSteps - 8));
  for (const auto& [step, loss] : rest.losses) EXPECT_EQ(loss, whole.losses.at(step)) << step;
}

TEST(BadSteps, ADamagedRecordOfARollbackIsNamed) {
  const Folder place;
  Attempt attempt{.overrides = going_back};
  attempt.killed = [](const Trained& run) { return run.gone_back_to.size() == 1; };
  expect_failure(train(attempt, place), "killed");
  const std::filesystem::path file = place.path() / "rolled_back.json";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  expect_failure(train(attempt, place), file.string() + " is damaged");
  // Of another checkpoint it says nothing.
  std::filesystem::remove(file);
  EXPECT_EQ(train({.overrides = going_back}, place).gone_back_to.size(), 10U);
}

}  // namespace
}  // namespace sluice::test
