#include "train/progress.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <thread>

namespace sluice {
namespace {

std::string written(size_t width, const std::function<void(Progress&)>& act) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), std::fclose);
  {
    Progress progress(file.get(), width, "R4");
    act(progress);
  }
  EXPECT_EQ(std::fseek(file.get(), 0, SEEK_SET), 0);
  std::string text(4096, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  return text;
}

const ProgressReport report{
    .step = 3, .steps = 7, .loss = 8.4119, .tokens_per_s = 2101.4, .mfu = 0.4291, .roofline = 0.668, .eta_seconds = 9};

TEST(Progress, SaysWhatOneWantsToKnow) {
  EXPECT_EQ(format(report), "step 3/7  loss 8.412  2,101 tok/s  MFU 42.9 %  67 % of roofline  ETA 0:09");
}

TEST(Progress, NoShareAboveOneIsPrinted) {
  ProgressReport fast = report;
  fast.mfu = 1.22;
  fast.roofline = 5.42;
  EXPECT_EQ(format(fast), "step 3/7  loss 8.412  2,101 tok/s  MFU above peak  cache-served  ETA 0:09");
}

// The line that counts seconds is there before the first step, and gone behind it.
TEST(Progress, SaysWhatIsWaitedForOnATerminal) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), std::fclose);
  const auto text = [&] {
    std::string all(1 << 16, '\0');
    const ssize_t count = ::pread(::fileno(file.get()), all.data(), all.size(), 0);
    return all.substr(0, static_cast<size_t>(std::max<ssize_t>(0, count)));
  };
  Progress progress(file.get(), 100, "R4");
  progress.wait_for("planning 8 ranks");
  while (text().find("\rR4 planning 8 ranks  0:0") == std::string::npos) std::this_thread::yield();
  progress.wait_for("first\033[2J step");
  while (text().find("\rR4 first\\x1b[2J step  0:0") == std::string::npos) std::this_thread::yield();
  progress.show(report);
  const std::string line = "\rR4 " + format(report) + "\033[K";
  EXPECT_TRUE(text().ends_with(line)) << text();
  progress.finish();
  EXPECT_TRUE(text().ends_with(line + "\r\033[K"));
}

TEST(Progress, AMomentSaysNothing) {
  EXPECT_EQ(written(0,
                    [](Progress& progress) {
                      progress.wait_for("planning");
                      progress.finish();
                      progress.finish();
                    }),
            "");
}

TEST(Progress, PlainLinesWithoutATerminal) {
  const std::string text = written(0, [](Progress& progress) {
    progress.show(report);
    progress.note("validation loss 2.0");
    progress.show(report);
    progress.finish();
  });
  EXPECT_EQ(text, "R4 " + format(report) + "\nvalidation loss 2.0\nR4 " + format(report) + "\n");
}

// A run goes on where there is nowhere to write.
TEST(Progress, AFullDiskEndsNothing) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> full(std::fopen("/dev/full", "w"), std::fclose);
  ASSERT_NE(full, nullptr);
  Progress progress(full.get(), 0, "R4");
  EXPECT_NO_THROW({
    progress.show(report);
    progress.note("validation loss 2.0");
    progress.finish();
  });
}

TEST(Progress, OneLineWrittenOverOnATerminal) {
  const std::string text = written(100, [](Progress& progress) {
    progress.show(report);
    progress.note("validation loss 2.0");
  });
  const std::string line = "R4 " + format(report);
  EXPECT_EQ(text, "\r" + line + "\033[K\r\033[Kvalidation loss 2.0\n" + line + "\r\033[K");
}

TEST(Progress, NeverLongerThanTheTerminal) {
  const std::string text = written(20, [](Progress& progress) { progress.show(report); });
  EXPECT_EQ(text, "\r" + ("R4 " + format(report)).substr(0, 19) + "\033[K\r\033[K");
}

}  // namespace
}  // namespace sluice
