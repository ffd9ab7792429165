// kill -9 at single calls to the file system: inside a save, at a rename, while a run is resumed. The same command goes
// on, and ends with the same bits as the run that nothing happened to.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include "e2e/file_calls/run_with_calls.h"

namespace sluice::test {
namespace {

constexpr const char* kRenames = "rename,link";
constexpr size_t kDrawn = 4;  // of the ordinary tests; the sweeps kill at each call

class KilledAtCall : public testing::Test {
 protected:
  // Of all runs that `begin` lets begin, the one that is killed at each of these calls.
  template <class Begin>
  void kill(Begin begin, const std::string& kinds, const std::vector<long>& at, const std::string& how,
            const std::string& under = "") {
    ASSERT_FALSE(at.empty());
    for (const long each : at) {
      SCOPED_TRACE(fmt::format("{} {} of {} {}", how, each, kinds, under));
      begin();
      const Outcome killed = run_.train({.kinds = kinds, .first = each, .last = each, .then = how, .under = under});
      // Threads may take turns otherwise, and then the last calls are not there.
      EXPECT_TRUE(killed.code == kKilled || killed.code == 0) << killed.code << killed.err;
      const Outcome again = run_.train();
      EXPECT_EQ(again.code, 0) << again.err;
      EXPECT_EQ(differences(run_.left(), whole_), "");
      kills_ += killed.code == kKilled ? 1 : 0;
    }
    EXPECT_GE(2 * kills_, at.size()) << "hardly a run was killed";
  }

  auto from_the_start() const {
    return [this] { run_.remove_all(); };
  }
  auto half_done() {
    return [this] { run_.leave_half_done(); };
  }

  // Runs that begin so.
  template <class Begin>
  long count(Begin begin, const std::string& kinds) {
    begin();
    const long count = run_.count(kinds);
    whole_ = run_.left();
    return count;
  }

  RunWithCalls run_;
  Left whole_;
  size_t kills_ = 0;
};

TEST_F(KilledAtCall, OfAllThatItWrites) {
  const long most = count(from_the_start(), kChanges);
  EXPECT_GT(most, 100);
  kill(from_the_start(), kChanges, some_of(most, kDrawn), "kill");
}

TEST_F(KilledAtCall, BeforeAndAfterARename) {
  const long most = count(from_the_start(), kRenames);
  EXPECT_GT(most, 16);
  kill(from_the_start(), kRenames, some_of(most, kDrawn / 2), "kill");
  kill(from_the_start(), kRenames, some_of(most, kDrawn / 2), "kill-after");
}

// A checkpoint gets its name, links lead to it, an export gets its own.
TEST_F(KilledAtCall, WhereSomethingIsPublished) {
  count(from_the_start(), kRenames);
  kill(from_the_start(), kRenames, {1}, "kill-after", "run/step-1");
  kill(from_the_start(), kRenames, {2}, "kill", "run/LATEST");
  kill(from_the_start(), kRenames, {1}, "kill-after", "out");
  EXPECT_EQ(kills_, 3U);
}

TEST_F(KilledAtCall, WhileItIsResumed) {
  const std::string kinds = std::string("read,") + kChanges;
  const long most = count(half_done(), kinds);
  kill(half_done(), kinds, some_of(most, kDrawn), "kill");
}

TEST_F(KilledAtCall, SweepOfAllThatItWrites) {
  const long most = count(from_the_start(), kChanges);
  kill(from_the_start(), kChanges, all_of(most), "kill");
}

TEST_F(KilledAtCall, SweepOfAllRenames) {
  const long most = count(from_the_start(), kRenames);
  kill(from_the_start(), kRenames, all_of(most), "kill");
  kill(from_the_start(), kRenames, all_of(most), "kill-after");
}

TEST_F(KilledAtCall, SweepWhileItIsResumed) {
  const std::string kinds = std::string("read,") + kChanges;
  const long most = count(half_done(), kinds);
  kill(half_done(), kinds, all_of(most), "kill");
}

}  // namespace
}  // namespace sluice::test
