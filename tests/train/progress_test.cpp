#include "train/progress.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>

namespace sluice {
namespace {

std::string written(size_t width, const std::function<void(Progress&)>& act) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), std::fclose);
  {
    Progress progress(file.get(), width, "R4");
    act(progress);
  }
  std::rewind(file.get());
  std::string text(4096, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  return text;
}

const ProgressReport report{
    .step = 3, .steps = 7, .loss = 8.4119, .tokens_per_s = 2101.4, .mfu = 0.4291, .roofline = 0.668, .eta_seconds = 9};

TEST(Progress, SaysWhatOneWantsToKnow) {
  EXPECT_EQ(format(report), "step 3/7  loss 8.412  2,101 tok/s  MFU 42.9 %  67 % of roofline  ETA 0:09");
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
