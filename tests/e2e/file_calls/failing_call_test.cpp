// Calls to the file system that fail, as on a full or broken disk or in a directory that may not be written: a clear
// error, or a warning and a run that goes on. What was saved stays whole, and when the disk is well again the same
// command comes to the same end.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <random>

#include "e2e/file_calls/run_with_calls.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSecond = "run/.step-2.sluice-unfinished";

// One call that fails, or all from one on.
struct Failure {
  std::string kinds;
  int code;
  bool stays = false;
  std::string under = {};
};

void PrintTo(const Failure& failure, std::ostream* out) {  // NOLINT(readability-identifier-naming): GoogleTest's
  *out << failure.kinds << " errno " << failure.code << (failure.stays ? " from then on" : "");
}

Calls from(const Failure& failure, long first) {
  return {.kinds = failure.kinds,
          .first = first,
          .last = failure.stays ? kAllLater : first,
          .then = std::to_string(failure.code),
          .under = failure.under};
}

struct Named {
  std::string what;
  Failure failure;
  std::vector<std::string> more;
  int code;
  std::vector<std::string> said;
  std::string latest = {};  // where LATEST leads then; empty: there is no checkpoint
};

TEST(FailingDisk, IsNamedAndTheLastGoodCheckpointIsWhole) {
  const std::vector<Named> cases = {
      {"unwritable at the start",
       {"create", EACCES, true, "run"},
       {},
       2,
       {"error: cannot write ", "/run/.lock: Permission denied", "checkpoint.checkpoint_dir names another place"}},
      {"read-only at the start",
       {"mkdir", EROFS, true, "run"},
       {},
       2,
       {"error: cannot create directory ", "/run: Read-only file system"}},
      {"full in the last save",
       {"write", ENOSPC, true, kSecond},
       {},
       1,
       {"error: step 2 is not saved: cannot write ", "No space left on device", "the trained weights are in "},
       "step-1"},
      {"unwritable in the middle",
       {"create,mkdir", EACCES, true, kSecond},
       {},
       1,
       {"error: step 2 is not saved: cannot create directory ", "Permission denied", "the trained weights are in "},
       "step-1"},
      {"an error of the disk in the first save",
       {"sync", EIO, false, "run/.step-1.sluice-unfinished"},
       {},
       0,
       {"warning: step 1 is not saved: cannot sync ", "Input/output error; the run goes on, no checkpoint of this run"},
       "step-2"},
      {"which ends the run where that is wanted",
       {"sync", EIO, false, "run/.step-1.sluice-unfinished"},
       {"--checkpoint.on_failure", "stop"},
       1,
       {"error: step 1 is not saved: cannot sync "}},
      {"a checkpoint that does not get its name",
       {"rename", EIO, false, "run/step-2"},
       {},
       1,
       {"error: step 2 is not saved: cannot write ", "run/step-2: Input/output error"},
       "step-1"},
      {"a log that cannot be written any more",
       {"write", ENOSPC, true, "run/training.jsonl"},
       {},
       0,
       {"training.jsonl: No space left on device; the run goes on without this log"},
       "step-2"},
  };
  const RunWithCalls run;
  ASSERT_EQ(run.train().code, 0);
  const Left whole = run.left();
  for (const Named& each : cases) {
    SCOPED_TRACE(each.what);
    run.remove_all();
    const Outcome outcome = run.train(from(each.failure, 1), each.more);
    EXPECT_EQ(outcome.code, each.code) << outcome.err;
    expect_in(outcome.err, each.said);
    std::error_code none;
    EXPECT_EQ(fs::read_symlink(run.path("run/LATEST"), none), each.latest);
    if (each.code == 0) continue;
    const Outcome again = run.train();
    EXPECT_EQ(again.code, 0) << again.err;
    EXPECT_EQ(differences(run.left(), whole), "");
  }
}

class FailingCall : public testing::TestWithParam<Failure> {};

// Whatever it is and whenever: nothing is lost without a word, and nothing for good.
void expect_said(const RunWithCalls& run, const Failure& failure, long at, const Left& whole) {
  SCOPED_TRACE(fmt::format("{} {} errno {}", failure.kinds, at, failure.code));
  run.remove_all();
  const Outcome hurt = run.train(from(failure, at));
  const bool error = hurt.err.find("error: ") != std::string::npos,
             warning = hurt.err.find("warning: ") != std::string::npos;
  EXPECT_TRUE(hurt.code == 0 || ((hurt.code == 1 || hurt.code == 2) && error)) << hurt.code << hurt.err;
  if (!error && !warning) {
    EXPECT_EQ(differences(run.left(), whole), "") << "lost without a word:\n" << hurt.err;
  }
  const Outcome again = run.train();
  EXPECT_EQ(again.code, 0) << again.err << "\nafter\n" << hurt.err;
  // What a log could not take is gone.
  if (hurt.err.find("the run goes on without this log") != std::string::npos) return;
  EXPECT_EQ(differences(run.left(), whole), "") << hurt.err;
}

TEST_P(FailingCall, Sweep) {
  RunWithCalls run;
  const long most = run.count(GetParam().kinds);
  const Left whole = run.left();
  for (const long at : all_of(most)) expect_said(run, GetParam(), at, whole);
}

const std::vector<Failure> failures = {
    {"write", ENOSPC, true}, {"write", EIO},  {"sync", EIO},           {"create", EACCES, true},
    {"create", EMFILE},      {"rename", EIO}, {"rename", EROFS, true}, {"mkdir,link", ENOSPC, true},
    {"remove", EACCES},      {"read", EIO},   {kChanges, EROFS, true}};

INSTANTIATE_TEST_SUITE_P(Disk, FailingCall, testing::ValuesIn(failures));

// A few of them, others in each run of the tests.
TEST(FailingDisk, AtAnyCallIsSaidAndLosesNothing) {
  const RunWithCalls run;
  ASSERT_EQ(run.train().code, 0);
  const Left whole = run.left();
  constexpr size_t kDrawn = 4;
  constexpr long kLatest = 30;
  std::mt19937 random(std::random_device{}());
  std::vector<Failure> drawn;
  std::ranges::sample(failures, std::back_inserter(drawn), kDrawn, random);
  for (const Failure& failure : drawn) {
    expect_said(run, failure, std::uniform_int_distribution<long>(1, kLatest)(random), whole);
  }
}

}  // namespace
}  // namespace sluice::test
