#include "checkpoint/checkpoint_folder.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>

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

// What a user error says, with what to do about it; empty where there is none.
std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user) << error.what();
    return describe(error);
  }
  return {};
}

void expect_in(const std::string& text, std::initializer_list<std::string> parts) {
  for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " in: " << text;
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

// "There are none" is said only of a folder that was looked into, or that is not there.
TEST(CheckpointFolder, AFolderThatCannotBeReadIsAnErrorThatNamesIt) {
  const Folder place;
  const fs::path file = place.path() / "file", loop = place.path() / "loop", closed = place.path() / "closed";
  write_file_atomic(file, "x");
  fs::create_symlink("loop", loop);
  const auto error = [](const fs::path& folder) { return error_of([&] { find_checkpoints(folder); }); };
  expect_in(error(file), {"cannot read directory " + file.string() + ": Not a directory"});
  expect_in(error(file / "run"), {"cannot read directory " + (file / "run").string() + ": Not a directory"});
  expect_in(error(loop), {"cannot read directory " + loop.string() + ": Too many levels of symbolic links"});
  if (::geteuid() == 0) return;  // whom permissions do not stop
  make(closed, {1});
  fs::permissions(closed, fs::perms::none);
  expect_in(error(closed), {"cannot read directory " + closed.string() + ": Permission denied"});
  expect_in(error(closed / "run"), {"cannot read directory " + (closed / "run").string() + ": Permission denied"});
  fs::permissions(closed, fs::perms::owner_all);
}

TEST(CheckpointFolder, WhatIsThereInPlaceOfADirectoryIsNamed) {
  const Folder place;
  const fs::path file = place.path() / "file", empty = place.path() / "empty", to_file = place.path() / "to_file",
                 loop = place.path() / "loop";
  write_file_atomic(file, "x");
  write_file_atomic(place.path() / "file.1", "x");
  fs::create_symlink("gone/far", empty);
  fs::create_symlink("file", to_file);
  fs::create_symlink("loop", loop);
  const auto error = [](const fs::path& folder) { return error_of([&] { CheckpointFolder made(folder); }); };
  for (const fs::path& below : {fs::path(), fs::path("run"), fs::path("a/b/c")}) {
    const auto under = [&](const fs::path& path) { return below.empty() ? path : path / below; };
    expect_in(error(under(file)),
              {"cannot make directory " + under(file).string() + ": " + file.string() + " is a file",
               "mv " + file.string() + " " + file.string() + ".2", "--checkpoint.checkpoint_dir"});
    expect_in(error(under(to_file)), {to_file.string() + " is a link to file, which is no directory",
                                      "remove the link (rm " + to_file.string() + ")"});
    expect_in(error(under(loop)), {loop.string() + " is a link to loop: Too many levels of symbolic links"});
    expect_in(error(under(empty)), {empty.string() + " is a link to gone/far, where nothing is",
                                    "mkdir -p " + (place.path() / "gone/far").string()});
  }
  // As advised.
  fs::create_directories(place.path() / "gone/far");
  EXPECT_EQ(error(empty / "run"), "");
  fs::rename(file, place.path() / "file.2");
  EXPECT_EQ(error(file), "");
}

TEST(CheckpointFolder, WhatIsInTheWayOfALaterSaveIsNamed) {
  const Folder place;
  make(place.path(), {3, 9});
  const CheckpointFolder folder(place.path());
  folder.link(3, true);
  const auto error = [&](int64_t step) { return error_of([&] { folder.require_free_names(step); }); };
  EXPECT_EQ(error(0), "") << "checkpoints are dealt with elsewhere";
  const std::vector<std::pair<std::string, std::function<void(const fs::path&)>>> kinds = {
      {"a file", [](const fs::path& at) { write_file_atomic(at, "x"); }},
      {"a link to nowhere, where nothing is", [](const fs::path& at) { fs::create_symlink("nowhere", at); }},
      {"a link to .lock, which is no directory", [](const fs::path& at) { fs::create_symlink(".lock", at); }},
      {"a link to step-7: Too many levels", [](const fs::path& at) { fs::create_symlink("step-7", at); }},
      {"neither a file nor a directory", [](const fs::path& at) { ASSERT_EQ(::mkfifo(at.c_str(), 0600), 0); }},
  };
  for (const auto& [what, put] : kinds) {
    put(place.path() / "step-7");
    const fs::path at = place.path() / "step-7";
    expect_in(error(6), {at.string() + " is " + what, "the checkpoint of step 7 would be saved under this name",
                         "mv " + at.string() + " " + at.string() + ".1"});
    EXPECT_EQ(error(7), "") << "the run begins behind it";
    fs::remove(at);
  }
  fs::remove(place.path() / "LATEST");
  fs::create_directory(place.path() / "LATEST");
  expect_in(error(9), {"LATEST is a directory, and the run would link one of its checkpoints under this name"});
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

// A disk of a size: what is in the folder takes room there.
struct Disk {
  explicit Disk(uint64_t bytes) : size(bytes) {}
  uint64_t used() const {
    uint64_t sum = 0;
    for (const auto& entry : fs::recursive_directory_iterator(place.path())) {
      if (entry.is_regular_file() && !entry.is_symlink()) sum += entry.file_size();
    }
    return sum;
  }
  void add(int64_t step, size_t bytes) const {
    fs::create_directories(place.path() / checkpoint_name(step));
    write_file_atomic(place.path() / checkpoint_name(step) / "file", std::string(bytes, 'x'));
  }
  CheckpointFolder folder() const {
    return CheckpointFolder(place.path(), [this](const fs::path&) { return std::optional(size - used()); });
  }

  Folder place;
  uint64_t size;
};

TEST(CheckpointFolder, RoomIsMadeOfWhatWillNotStay) {
  const Disk disk(1000);
  for (int64_t step = 1; step <= 6; ++step) disk.add(step, 150);
  const CheckpointFolder folder = disk.folder();
  folder.link(6, false);
  testing::internal::CaptureStderr();
  folder.make_room(7, 100, {.recent = 3});
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << "there is room";
  EXPECT_EQ(steps_in(folder.path()).size(), 6U);
  testing::internal::CaptureStderr();
  folder.make_room(7, 400, {.recent = 3});
  expect_in(testing::internal::GetCapturedStderr(),
            {folder.path().string(), "removed step-1, step-2 to make room for step-7, which needs 400", "100"});
  EXPECT_EQ(steps_in(folder.path()), (std::vector<int64_t>{3, 4, 5, 6})) << "no more than it takes";
  folder.make_room(7, 550, {.recent = 3});
  EXPECT_EQ(steps_in(folder.path()), (std::vector<int64_t>{4, 5, 6}));
  EXPECT_THROW(folder.make_room(7, 900, {.recent = 3}), Error);
  EXPECT_EQ(steps_in(folder.path()), (std::vector<int64_t>{5, 6})) << "with the new one they are three";
  EXPECT_THROW(folder.make_room(7, 900, {.recent = 1}), Error);
  EXPECT_EQ(steps_in(folder.path()), (std::vector<int64_t>{6})) << "one must be there until the next one is";
}

TEST(CheckpointFolder, RoomIsNotMadeOfWhatStays) {
  const Disk disk(1000);
  for (int64_t step = 1; step <= 6; ++step) disk.add(step, 150);
  const CheckpointFolder folder = disk.folder();
  folder.link(2, true);
  folder.link(1, false);  // as where a run was killed before it set the link anew
  EXPECT_THROW(folder.make_room(7, 900, {.every = 3}), Error);
  EXPECT_EQ(steps_in(folder.path()).size(), 6U) << "no number: all stay";
  EXPECT_THROW(folder.make_room(7, 900, {.recent = 1, .every = 3}), Error);
  EXPECT_EQ(steps_in(folder.path()), (std::vector<int64_t>{1, 2, 3, 6}));
  // As where one was killed before it set its first link.
  const Disk other(1000);
  for (int64_t step = 1; step <= 2; ++step) other.add(step, 400);
  const CheckpointFolder without = other.folder();
  EXPECT_THROW(without.make_room(3, 900, {.recent = 1}), Error);
  EXPECT_EQ(steps_in(without.path()), (std::vector<int64_t>{2}));
}

}  // namespace
}  // namespace sluice::test
