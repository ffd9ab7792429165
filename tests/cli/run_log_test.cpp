#include "cli/run_log.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "base/file.h"
#include "support/temporary_folder.h"

namespace sluice::cli {
namespace {

std::string line(int step) {
  return fmt::format(R"({{"step":{},"loss":1.5}})", step);
}

// As on a disk that is full for a while: files cannot grow beyond `bytes`.
class MostBytes {
 public:
  explicit MostBytes(rlim_t bytes) : on_signal_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit now{.rlim_cur = bytes, .rlim_max = before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &now);
  }
  ~MostBytes() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, on_signal_);
  }
  MostBytes(const MostBytes&) = delete;
  MostBytes& operator=(const MostBytes&) = delete;

 private:
  void (*on_signal_)(int);
  rlimit before_{};
};

TEST(RunLog, IsWrittenAgainWhenItCanBeAndHasWholeLinesAlone) {
  const test::Folder folder;
  const std::filesystem::path path = folder.path() / "log.jsonl";
  RunLog log(path, 0);
  log.write_line(line(1));
  testing::internal::CaptureStderr();
  {
    const MostBytes full(line(1).size() + 5);
    log.write_line(line(2));
    log.write_line(line(3));
  }
  EXPECT_EQ(read_file(path, 1000), line(1) + "\n") << "no part of a line";
  log.write_line(line(4));
  log.write_line(line(5));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(read_file(path, 1000), line(1) + "\n" + line(4) + "\n" + line(5) + "\n");
  EXPECT_EQ(said.find("the run goes on without this log"), said.rfind("the run goes on without this log")) << said;
  EXPECT_NE(said.find("log.jsonl is written again; it lacks what could not be written"), std::string::npos) << said;
}

TEST(RunLog, WhatIsTakenOutIsSaidAsWhatItIs) {
  const test::Folder folder;
  const std::filesystem::path path = folder.path() / "log.jsonl";
  const auto said_of = [&](const std::string& text) {
    write_file_atomic(path, text);
    testing::internal::CaptureStderr();
    const RunLog log(path, 2);
    EXPECT_EQ(read_file(path, 1000), line(1) + "\n" + line(2) + "\n");
    return testing::internal::GetCapturedStderr();
  };
  const std::string good = line(1) + "\n" + line(2) + "\n", later = "took out 1 line of steps after 2",
                    torn = "took out 1 line that a crash has cut short or damaged";
  EXPECT_EQ(said_of(good), "");
  const std::string of_later = said_of(good + line(3) + "\n"), of_torn = said_of(good + line(3).substr(0, 7));
  EXPECT_NE(of_later.find(later), std::string::npos) << of_later;
  EXPECT_EQ(of_later.find(torn), std::string::npos) << of_later;
  EXPECT_NE(of_torn.find(torn), std::string::npos) << of_torn;
  EXPECT_EQ(of_torn.find(later), std::string::npos) << of_torn;
}

}  // namespace
}  // namespace sluice::cli
