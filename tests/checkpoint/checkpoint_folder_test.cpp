#include "checkpoint/checkpoint_folder.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "support/temporary_folder.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

std::vector<int64_t> steps_in(const fs::path& folder) {
  std::vector<int64_t> steps;
  for (const FoundCheckpoint& found : find_checkpoints(folder)) steps.push_back(found.step);
  return steps;
}

void make(const fs::path& folder, std::initializer_list<int64_t> steps) {
  for (const int64_t step : steps) {
    fs::create_directories(folder / checkpoint_name(step));
    write_file_atomic(folder / checkpoint_name(step) / "file", "x");
  }
}

TEST(CheckpointFolder, NamesAreSteps) {
  EXPECT_EQ(checkpoint_name(1200), "step-1200");
  EXPECT_EQ(step_of_name("step-1200"), 1200);
  for (const char* name :
       {"step-", "step-1a", "step--1", "step-01", "step-5.damaged", "LATEST", "step-99999999999999999999"}) {
    EXPECT_EQ(step_of_name(name), std::nullopt) << name;
  }
}

TEST(CheckpointFolder, FindsCompleteOnesInTheOrderOfSteps) {
  const Folder place;
  make(place.path(), {10, 9, 100});
  fs::create_directories(place.path() / ".step-200.sluice-unfinished");
  write_file_atomic(place.path() / "step-7", "a file");
  EXPECT_EQ(steps_in(place.path()), (std::vector<int64_t>{9, 10, 100}));
  EXPECT_TRUE(find_checkpoints(place.path() / "nowhere").empty());
}

TEST(CheckpointFolder, OnlyOneHasIt) {
  const Folder place;
  const CheckpointFolder one(place.path());
  try {
    const CheckpointFolder other(place.path());
    ADD_FAILURE() << "two have the lock";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("another run is training in"), std::string::npos);
  }
}

TEST(CheckpointFolder, TheNextRunRemovesWhatAKilledOneLeft) {
  const Folder place;
  make(place.path(), {5});
  for (const char* left : {".step-6.sluice-unfinished", ".step-1.removed"}) {
    fs::create_directories(place.path() / left);
    write_file_atomic(place.path() / left / "file", "x");
  }
  const CheckpointFolder folder(place.path());
  EXPECT_FALSE(fs::exists(place.path() / ".step-6.sluice-unfinished"));
  EXPECT_FALSE(fs::exists(place.path() / ".step-1.removed"));
  EXPECT_EQ(steps_in(place.path()), (std::vector<int64_t>{5}));
}

TEST(CheckpointFolder, LinksLeadToTheNewestAndTheBest) {
  const Folder place;
  make(place.path(), {1, 2});
  const CheckpointFolder folder(place.path());
  folder.link(1, true);
  folder.link(2, false);
  EXPECT_EQ(fs::read_symlink(place.path() / "LATEST"), "step-2");
  EXPECT_EQ(fs::read_symlink(place.path() / "LOWEST_VAL"), "step-1");
}

TEST(CheckpointFolder, KeepsWhatItIsTold) {
  const Folder place;
  make(place.path(), {1, 2, 3, 4, 5, 6, 7});
  const CheckpointFolder folder(place.path());
  folder.link(2, true);
  folder.link(7, false);
  folder.clean({});
  EXPECT_EQ(steps_in(place.path()).size(), 7U) << "no number: all";
  folder.clean({.recent = 2, .every = 3});
  EXPECT_EQ(steps_in(place.path()), (std::vector<int64_t>{2, 3, 6, 7}));
  folder.clean({.recent = 1});
  EXPECT_EQ(steps_in(place.path()), (std::vector<int64_t>{2, 7})) << "the best one stays";
}

}  // namespace
}  // namespace sluice::test
