// A directory that is there whole or not at all, whatever happens while it is written.
#include "base/staged_directory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

class Staged : public testing::Test {
 public:
  Staged() { fs::create_directories(at_); }
  ~Staged() override { fs::remove_all(at_); }

 protected:
  // All names, "a/b" for a file in a directory; "" when nothing is there.
  std::string names() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::recursive_directory_iterator(at_)) {
      found.push_back(fs::relative(entry.path(), at_).string());
    }
    std::ranges::sort(found);
    std::string text;
    for (const std::string& name : found) text += (text.empty() ? "" : " ") + name;
    return text;
  }
  static void fill(const StagedDirectory& staged, const std::string& contents) {
    write_file_atomic(staged.path() / "weights", contents);
  }
  std::string contents(const std::string& name) const { return read_file(at_ / name, 100); }

  const fs::path at_ = fs::temp_directory_path() / ("sluice-staged-" + std::to_string(::getpid()) +
                                                    testing::UnitTest::GetInstance()->current_test_info()->name());
};

template <class Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return describe(error);
  }
  return "no error";
}

TEST_F(Staged, AppearsWhenItIsComplete) {
  StagedDirectory staged(at_ / "out", false);
  EXPECT_EQ(names(), "") << "nothing before the beginning";
  staged.begin();
  fill(staged, "mine");
  EXPECT_FALSE(fs::exists(at_ / "out"));
  staged.commit();
  EXPECT_TRUE(staged.committed());
  EXPECT_EQ(names(), "out out/weights");
  staged.abandon();
  EXPECT_EQ(names(), "out out/weights") << "what is complete stays";
}

TEST_F(Staged, LeavesNothingUnlessItIsComplete) {
  {
    StagedDirectory staged(at_ / "a" / "b" / "out", false);
    staged.begin();
    fill(staged, "mine");
  }
  EXPECT_EQ(names(), "") << "the directories above it were its own too";
  fs::create_directory(at_ / "a");
  write_file_atomic(at_ / "a" / "other", "x");
  StagedDirectory staged(at_ / "a" / "b" / "out/", false);
  staged.begin();
  staged.abandon();
  EXPECT_EQ(names(), "a a/other");
  EXPECT_NE(error_of([&] { staged.commit(); }).find("given up"), std::string::npos);
  EXPECT_NE(error_of([&] { staged.begin(); }).find("given up"), std::string::npos);
}

TEST_F(Staged, TakesTheNameOfAnEmptyDirectory) {
  fs::create_directory(at_ / "out");
  StagedDirectory staged(at_ / "out", false);
  staged.begin();
  fill(staged, "mine");
  staged.commit();
  EXPECT_EQ(names(), "out out/weights");
}

TEST_F(Staged, IsRefusedWhereSomethingStands) {
  fs::create_directory(at_ / "full");
  write_file_atomic(at_ / "full" / "x", "x");
  write_file_atomic(at_ / "file", "x");
  fs::create_symlink("nowhere", at_ / "link");
  for (const char* name : {"full", "file", "link"}) {
    StagedDirectory staged(at_ / name, false);
    EXPECT_NE(error_of([&] { staged.begin(); }), "no error") << name;
  }
  EXPECT_EQ(names(), "file full full/x link");
}

TEST_F(Staged, TwoAtATimeAreNot) {
  StagedDirectory first(at_ / "out", false);
  first.begin();
  fill(first, "first");
  {
    StagedDirectory second(at_ / "out", false);
    EXPECT_NE(error_of([&] { second.begin(); }).find("another run is writing"), std::string::npos);
  }
  EXPECT_TRUE(fs::exists(first.path() / "weights")) << "the second took nothing away";
  first.commit();
  StagedDirectory third(at_ / "out", false);
  EXPECT_NE(error_of([&] { third.begin(); }).find("is not empty"), std::string::npos);
  EXPECT_EQ(contents("out/weights"), "first");
}

TEST_F(Staged, WhatCameMeanwhileIsNotReplaced) {
  StagedDirectory staged(at_ / "out", false);
  staged.begin();
  fill(staged, "mine");
  fs::create_directory(at_ / "out");
  write_file_atomic(at_ / "out" / "weights", "theirs");
  fs::create_directory(at_ / "out.2");
  const std::string said = error_of([&] { staged.commit(); });
  EXPECT_NE(said.find("made meanwhile"), std::string::npos) << said;
  EXPECT_NE(said.find("complete in " + (at_ / "out.3").string()), std::string::npos) << said;
  EXPECT_EQ(contents("out/weights"), "theirs");
  EXPECT_EQ(contents("out.3/weights"), "mine");
  EXPECT_TRUE(staged.committed());
}

TEST_F(Staged, ReplacesTheDirectoryThatWasToBeReplaced) {
  fs::create_directory(at_ / "out");
  write_file_atomic(at_ / "out" / "weights", "old");
  write_file_atomic(at_ / "out" / "more", "old");
  {
    StagedDirectory staged(at_ / "out", true);
    staged.begin();
    fill(staged, "never ends");
  }
  EXPECT_EQ(contents("out/weights"), "old") << "it is whole until the new one is";
  StagedDirectory staged(at_ / "out", true);
  staged.begin();
  fill(staged, "new");
  EXPECT_EQ(contents("out/weights"), "old");
  staged.commit();
  EXPECT_EQ(names(), "out out/weights");
  EXPECT_EQ(contents("out/weights"), "new");
  // Another directory under that name is not the one that was to be replaced.
  StagedDirectory late(at_ / "out", true);
  late.begin();
  fill(late, "late");
  fs::rename(at_ / "out", at_ / "away");
  fs::create_directory(at_ / "out");
  write_file_atomic(at_ / "out" / "weights", "theirs");
  EXPECT_NE(error_of([&] { late.commit(); }), "no error");
  EXPECT_EQ(contents("out/weights"), "theirs");
  EXPECT_EQ(contents("out.2/weights"), "late");
}

TEST_F(Staged, WhatAKilledProcessLeftIsNotInTheWay) {
  fs::create_directories(at_ / ".out.sluice-unfinished" / "deep");
  write_file_atomic(at_ / ".out.sluice-unfinished" / "model.safetensors.tmp-1", "a part");
  StagedDirectory staged(at_ / "out", false);
  staged.begin();
  fill(staged, "mine");
  staged.commit();
  EXPECT_EQ(names(), "out out/weights");
}

TEST_F(Staged, WhatItWasToBeInMayBeGoneMeanwhile) {
  StagedDirectory staged(at_ / "a" / "out", false);
  staged.begin();
  fs::remove_all(at_ / "a");
  staged.restore();
  fill(staged, "mine");
  staged.commit();
  EXPECT_EQ(names(), "a a/out a/out/weights");
}

TEST_F(Staged, ANameMayBeAsLongAsAFileSystemTakes) {
  StagedDirectory staged(at_ / std::string(255, 'n'), false);
  staged.begin();
  staged.commit();
  EXPECT_EQ(names(), std::string(255, 'n'));
}

TEST_F(Staged, IsGivenUpWhileItIsWritten) {
  StagedDirectory staged(at_ / "out", false);
  staged.begin();
  std::atomic<int> written = 0;
  std::string failure;
  std::jthread writer([&] {
    failure = error_of([&] {
      for (int i = 0; i < 1'000'000; ++i, ++written) write_file_atomic(staged.path() / std::to_string(i), "x");
    });
  });
  while (written < 20) std::this_thread::yield();
  staged.abandon();
  writer.join();
  EXPECT_EQ(names(), "");
  EXPECT_NE(failure, "no error") << "the writer has nowhere to write to";
}

}  // namespace
}  // namespace sluice
