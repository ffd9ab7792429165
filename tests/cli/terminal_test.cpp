#include "cli/terminal.h"

#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace sluice::cli {
namespace {

// A descriptor in the place of stdout while this lives; no COLUMNS from outside.
class StdoutIs {
 public:
  explicit StdoutIs(int descriptor) : saved_(::dup(STDOUT_FILENO)) {
    std::fflush(stdout);
    ::dup2(descriptor, STDOUT_FILENO);
    ::unsetenv("COLUMNS");
  }
  ~StdoutIs() {
    ::dup2(saved_, STDOUT_FILENO);
    ::close(saved_);
    ::unsetenv("COLUMNS");
  }
  StdoutIs(const StdoutIs&) = delete;
  StdoutIs& operator=(const StdoutIs&) = delete;
  StdoutIs(StdoutIs&&) = delete;
  StdoutIs& operator=(StdoutIs&&) = delete;

 private:
  int saved_;
};

size_t page_of_terminal(unsigned short columns, const char* wanted = nullptr) {
  int here = -1, there = -1;
  winsize size{};
  size.ws_col = columns;
  if (::openpty(&here, &there, nullptr, nullptr, &size) != 0) return 0;
  size_t width = 0;
  {
    const StdoutIs terminal(there);
    if (wanted != nullptr) ::setenv("COLUMNS", wanted, 1);
    width = page_width();
  }
  ::close(here);
  ::close(there);
  return width;
}

TEST(PageWidth, IsTheTerminalsBetween80And100) {
  EXPECT_EQ(page_of_terminal(80), 80U);
  EXPECT_EQ(page_of_terminal(93), 93U);
  EXPECT_EQ(page_of_terminal(200), 100U);
  EXPECT_EQ(page_of_terminal(40), 80U);
  EXPECT_EQ(page_of_terminal(0), 80U) << "a terminal that does not say";
}

TEST(PageWidth, ColumnsOverrides) {
  EXPECT_EQ(page_of_terminal(80, "90"), 90U);
  EXPECT_EQ(page_of_terminal(100, "1"), 80U);
  for (const char* nothing : {"", "0", "wide", "90x", "-90"}) EXPECT_EQ(page_of_terminal(85, nothing), 85U) << nothing;
}

TEST(PageWidth, APipeIsWide) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe(ends), 0);
  size_t plain = 0, wanted = 0;
  {
    const StdoutIs piped(ends[1]);
    plain = page_width();
    ::setenv("COLUMNS", "80", 1);
    wanted = page_width();
  }
  EXPECT_EQ(plain, 100U);
  EXPECT_EQ(wanted, 80U);
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace
}  // namespace sluice::cli
