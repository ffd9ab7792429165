// Saves of a run where there is no room for one more.
#include "training/saver.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "checkpoint/rank_file.h"
#include "data/mock.h"
#include "support/temporary_folder.h"
#include "support/training.h"
#include "training/resume.h"
#include "training/training.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

uint64_t bytes_in(const fs::path& folder) {
  uint64_t sum = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() && !entry.is_symlink()) sum += entry.file_size();
  }
  return sum;
}

// Trains six steps, each saved, on a disk of so many bytes; returns the steps that are there at the end.
std::vector<int64_t> saved_steps(uint64_t disk, const Retention& retention, int ranks = 1,
                                 const std::function<uint64_t(int64_t)>& more = {}) {
  constexpr int64_t kSteps = 6;
  const Config config = tiny_config({});
  RunSpec spec = resolve(config, ranks, Purpose::train);
  const MockDataset dataset(7, 64);
  TrainingJob job = training_job(config, spec, dataset, nullptr);
  job.steps = kSteps;
  job.schedule = {.every = 1};
  const Folder place;
  const CheckpointFolder folder(place.path(), [&](const fs::path& path) {
    const uint64_t used = bytes_in(path);
    return std::optional<uint64_t>(used > disk ? 0 : disk - used);
  });
  const SaveOptions saving{.folder = &folder,
                           .retention = retention,
                           .manifest = describe_run(config, dataset, "test"),
                           .complete_bytes = more};
  job.saving = &saving;
  spec = with_steps(std::move(spec), config, kSteps);
  run_training(job, spec, {.device = DeviceKind::ref}, {});
  std::vector<int64_t> steps;
  for (const FoundCheckpoint& found : find_checkpoints(place.path())) steps.push_back(found.step);
  return steps;
}

// What a save asks for beside the ranks' files.
constexpr uint64_t kBeside = 1 << 20;

uint64_t checkpoint_bytes() {
  static const uint64_t bytes = [] {
    const Config config = tiny_config({});
    uint64_t sum = 0;
    run_session(resolve(config, 1, Purpose::train), {.device = DeviceKind::ref}, MockDataset(7, 64),
                [&](Trainer& trainer) { sum = RankFile(kept_slices(trainer.state())).bytes(); });
    return sum;
  }();
  return bytes;
}

TEST(Saver, OnAFullDiskTheOldestGivesWayToTheNewOne) {
  // Room for the two that stay, and not for a third beside them.
  const uint64_t disk = 2 * checkpoint_bytes() + checkpoint_bytes() / 2 + kBeside;
  testing::internal::CaptureStderr();
  EXPECT_EQ(saved_steps(disk, {.recent = 2}), (std::vector<int64_t>{5, 6}));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("removed step-1 to make room for step-3"), std::string::npos) << said;
  EXPECT_EQ(said.find("is not saved"), std::string::npos) << said;
  testing::internal::CaptureStderr();
  EXPECT_EQ(saved_steps(disk, {.recent = 2}, 2), (std::vector<int64_t>{5, 6}));
  EXPECT_EQ(testing::internal::GetCapturedStderr().find("is not saved"), std::string::npos);
}

TEST(Saver, WhatIsMadeOfACheckpointNeedsRoomToo) {
  const uint64_t disk = 20 * checkpoint_bytes() + kBeside;
  testing::internal::CaptureStderr();
  EXPECT_EQ(saved_steps(disk, {}, 1, [&](int64_t step) { return step == 3 ? disk : 0; }),
            (std::vector<int64_t>{1, 2, 4, 5, 6}));
  EXPECT_NE(testing::internal::GetCapturedStderr().find("step 3 is not saved: "), std::string::npos);
}

TEST(Saver, WhereNoneMayGoTheSaveFailsAndAllStay) {
  const uint64_t disk = 2 * checkpoint_bytes() + checkpoint_bytes() / 2 + kBeside;
  testing::internal::CaptureStderr();
  EXPECT_ANY_THROW(saved_steps(disk, {}));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("step 3 is not saved: "), std::string::npos) << said;
  EXPECT_NE(said.find(" are free there; the run goes on, the last good checkpoint is "), std::string::npos) << said;
}

}  // namespace
}  // namespace sluice::test
