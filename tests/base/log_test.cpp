#include "base/log.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

namespace sluice::log {
namespace {

template <class Call>
std::string stderr_of(Call call) {
  testing::internal::CaptureStderr();
  call();
  return testing::internal::GetCapturedStderr();
}

TEST(Log, NamesTheLevelInWords) {
  EXPECT_EQ(stderr_of([] { info("step {}", 3); }), "step 3\n");
  EXPECT_EQ(stderr_of([] { warn("slow"); }), "warning: slow\n");
  EXPECT_EQ(stderr_of([] { error("{} of {}", 1, 2); }), "error: 1 of 2\n");
}

TEST(Log, DropsWhatIsBelowTheLevel) {
  EXPECT_EQ(stderr_of([] { debug("hidden"); }), "");
  set_level(Level::debug);
  EXPECT_EQ(stderr_of([] { debug("shown"); }), "debug: shown\n");
  set_level(Level::off);
  EXPECT_EQ(stderr_of([] { error("hidden"); }), "");
  set_level(Level::info);
}

TEST(Log, BracesInAReadyMessageAreText) {
  EXPECT_EQ(stderr_of([] { write(Level::info, "{not a format}"); }), "{not a format}\n");
}

TEST(Log, TextFromOutsideIsMadePrintable) {
  EXPECT_EQ(stderr_of([] { warn("{} is odd", "a\033]0;title\a.yaml"); }), "warning: a\\x1b]0;title\\x07.yaml is odd\n");
}

TEST(Log, BreaksLinesOnATerminal) {
  set_width(12);
  EXPECT_EQ(stderr_of([] { warn("a b c d"); }), "warning: a b\n  c d\n");
  set_width(0);
  EXPECT_EQ(stderr_of([] { warn("a b c d"); }), "warning: a b c d\n");
}

TEST(Log, TakesThePlaceOfALineThatIsWrittenOver) {
  set_line_shown(true);
  EXPECT_EQ(stderr_of([] {
              info("first");
              info("second");
            }),
            "\r\033[Kfirst\nsecond\n");
}

TEST(Log, RankBelongsToTheThreadAndTheScope) {
  const std::string text = stderr_of([] {
    const RankScope outer(3, 8);
    warn("a");
    std::thread([] { info("b"); }).join();
    {
      const RankScope inner(0, 1);
      info("c");
    }
    info("d");
  });
  EXPECT_EQ(text, "[rank 3] warning: a\nb\nc\n[rank 3] d\n");
}

}  // namespace
}  // namespace sluice::log
