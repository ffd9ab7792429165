#include "training/progress.h"

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

// Of a benchmark.
const ProgressReport report{.step = 3,
                            .steps = 7,
                            .loss = 8.4119,
                            .tokens_per_s = 2101.4,
                            .mfu = 0.4291,
                            .roofline = 0.668,
                            .elapsed_seconds = 12,
                            .own_steps = 3};

ProgressReport of_training() {
  ProgressReport training = report;
  training.step = 1200;
  training.steps = 2000;
  training.learning_rate = 2.9514e-4;
  training.gradient_norm = 0.8749;
  training.tokens_per_s = 12345;
  training.elapsed_seconds = 754;
  training.own_steps = 1200;
  return training;
}

TEST(Progress, SaysWhatOneWantsToKnow) {
  EXPECT_EQ(format(report), "step 3/7  loss 8.412  2,101 tok/s  MFU 42.9 %  roofline 67 %  ETA 0:16");
  EXPECT_EQ(format(of_training()),
            "step 1200/2000  loss 8.412  lr 3.0e-4  norm 0.87  12,345 tok/s  MFU 42.9 %  roofline 67 %  "
            "12:34, ETA 8:23");
  ProgressReport two_losses = report;
  two_losses.mtp_loss = 9.25;
  EXPECT_EQ(format(two_losses), "step 3/7  loss 8.412  mtp 9.250  2,101 tok/s  MFU 42.9 %  roofline 67 %  ETA 0:16");
}

TEST(Progress, NoShareAboveOneIsPrinted) {
  ProgressReport fast = report;
  fast.mfu = 1.22;
  fast.roofline = 5.42;
  EXPECT_EQ(format(fast), "step 3/7  loss 8.412  2,101 tok/s  MFU above peak  cache-served  ETA 0:16");
  fast.precision = "bf16";
  EXPECT_EQ(format(fast), "step 3/7  loss 8.412  2,101 tok/s bf16  MFU above peak  cache-served  ETA 0:16");
}

TEST(Progress, RatesAndNormsOfAnySizeAreShort) {
  const auto shown = [](double rate, double norm) {
    ProgressReport training = report;
    training.learning_rate = rate;
    training.gradient_norm = norm;
    const std::string line = format(training);
    const size_t begin = line.find("lr ");
    return line.substr(begin, line.find("  2,101") - begin);
  };
  EXPECT_EQ(shown(0, 0), "lr 0  norm 0");
  EXPECT_EQ(shown(1, 1), "lr 1.0e+0  norm 1.00");
  EXPECT_EQ(shown(9.99e-6, 0.00999), "lr 1.0e-5  norm 1.0e-2");
  EXPECT_EQ(shown(2.5e-11, 999.4), "lr 2.5e-11  norm 999.40");
  EXPECT_EQ(shown(1e-100, 1000), "lr 1.0e-100  norm 1.0e+3");
}

// The steps before were another run's: they say nothing about this one's pace.
TEST(Progress, AResumedRunsPaceIsItsOwn) {
  ProgressReport resumed = of_training();
  resumed.own_steps = 10;
  resumed.elapsed_seconds = 20;
  EXPECT_TRUE(format(resumed).ends_with("  0:20, ETA 26:40")) << format(resumed);
  resumed.own_steps = 0;
  resumed.elapsed_seconds = 0;
  EXPECT_TRUE(format(resumed).ends_with("  0:00, ETA ?")) << format(resumed);
}

// On 80 columns a training shows at least what one looks for at once; whole parts are left out, never half a number.
TEST(Progress, LeavesOutWholePartsTheLeastImportantFirst) {
  ProgressReport training = of_training();
  EXPECT_EQ(format(training, 79), "step 1200/2000  loss 8.412  lr 3.0e-4  norm 0.87  12,345 tok/s  12:34, ETA 8:23");
  training.step = 12000;
  training.steps = 50000;
  training.elapsed_seconds = 4 * 3600;
  training.own_steps = 12000;
  EXPECT_EQ(format(training, 79), "step 12000/50000  loss 8.412  lr 3.0e-4  norm 0.87  4:00:00, ETA 12:40:00");
  training.mtp_loss = 9.25;
  const std::string all = format(training);
  std::string last;
  for (size_t columns = all.size(); columns > 0; --columns) {
    const std::string line = format(training, columns);
    if (line == last) continue;
    last = line;
    EXPECT_TRUE(line.size() <= columns || line == "step 12000/50000") << line;
    for (size_t begin = 0; begin < line.size();) {
      const size_t end = std::min(line.find("  ", begin), line.size());
      const std::string part = line.substr(begin, end - begin);
      EXPECT_NE(("  " + all + "  ").find("  " + part + "  "), std::string::npos) << part;
      begin = end + 2;
    }
  }
  EXPECT_EQ(last, "step 12000/50000");
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
  const auto line_at = [](size_t width) { return written(width, [](Progress& progress) { progress.show(report); }); };
  EXPECT_EQ(line_at(80), "\rR4 " + format(report) + "\033[K\r\033[K");
  EXPECT_EQ(line_at(30), "\rR4 step 3/7  loss 8.412\033[K\r\033[K");
  EXPECT_EQ(line_at(20), "\rR4 step 3/7\033[K\r\033[K");
  EXPECT_EQ(line_at(8), "\rR4 step\033[K\r\033[K");
  EXPECT_EQ(line_at(2), "\rR\033[K\r\033[K");
}

}  // namespace
}  // namespace sluice
