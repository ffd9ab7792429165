// Runs that are ended before their end: what was trained is kept or named as lost, and nothing partial is left.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "base/file.h"
#include "e2e/program.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

// All names in a folder, hidden ones too.
std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}

// A run without an end whose steps take a while: `sequences` each.
struct LongRun {
  explicit LongRun(int sequences = 64) {
    fs::create_directory(folder.path("results"));
    command = {"train",
               folder.file("run.yaml", small_config()),
               "--step_scheduler.max_steps",
               "1000000",
               "--step_scheduler.global_batch_size",
               std::to_string(sequences),
               "--export",
               out};
  }
  void expect_exported() const {
    EXPECT_EQ(names_in(folder.path("results")), (std::vector<std::string>{"out"}));
    EXPECT_EQ(names_in(out), (std::vector<std::string>{"config.json", "model.safetensors"}));
  }
  void expect_nothing() const { EXPECT_EQ(names_in(folder.path("results")), std::vector<std::string>{}); }

  Folder folder;
  std::string out = folder.path("results/out");
  std::vector<std::string> command;
};

TEST(Interrupted, ASignalEndsTheRunAfterTheStepWithItsWeights) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, kHangUp}) {
    SCOPED_TRACE(signal);
    const LongRun run(4);
    const Outcome outcome = signalled(run.command, "step 2/", {signal});
    EXPECT_EQ(outcome.code, 128 + (signal == kHangUp ? SIGHUP : signal)) << outcome.out;
    if (signal != kHangUp) {
      expect_in(outcome.out, {"ending after this step, in ", "again: at once, and the trained", "stopped: "});
    }
    run.expect_exported();
  }
}

TEST(Interrupted, ASecondSignalEndsItAtOnceAndLeavesNothing) {
  const LongRun run(2000);
  const Outcome outcome = signalled(run.command, "step 1/", {SIGINT, SIGTERM});
  EXPECT_TRUE(outcome.code == 128 + SIGTERM || outcome.code == 128 + SIGINT) << outcome.code;
  expect_in(outcome.out, {": the weights of 1 trained step are lost"});
  run.expect_nothing();
}

TEST(Interrupted, AValidationEndsAfterItsBatch) {
  const LongRun run(4);
  std::vector<std::string> command = run.command;
  command.insert(command.end(), {"--step_scheduler.val_every_steps", "2", "--validation_dataset",
                                 "{_target_: mock, num_samples: 100000000}"});
  const Outcome outcome = signalled(command, "validating, batch ", {SIGINT});
  EXPECT_EQ(outcome.code, 128 + SIGINT) << outcome.out;
  expect_in(outcome.out, {" of 25,000,000", "ending after this batch of the validation", "stopped: 2 steps"});
  EXPECT_EQ(outcome.out.find("validation loss"), std::string::npos);
  run.expect_exported();
}

// nohup, and jobs that a shell starts in the background.
TEST(Interrupted, AnIgnoredSignalStaysIgnored) {
  const LongRun run(4);
  const Outcome outcome =
      shell(fmt::format("trap '' HUP; \"$SLUICE\" train {0} --step_scheduler.max_steps 400 --export {1} 2>{2} & "
                        "until grep -q 'step 1/' {2}; do sleep 0.01; done; kill -HUP $!; wait $!",
                        run.command[1], run.out, run.folder.path("err")));
  EXPECT_EQ(outcome.code, 0);
  expect_in(outcome.out, {"done: 400 steps"});
  run.expect_exported();
}

TEST(Interrupted, AReaderThatGoesEndsNoRun) {
  const LongRun run(4);
  const std::string train = fmt::format("\"$SLUICE\" train {} --step_scheduler.max_steps 100", run.command[1]);
  const Outcome out = shell(fmt::format("set -o pipefail; {} --export {} | true", train, run.out));
  EXPECT_EQ(out.code, 0) << out.err;
  expect_in(out.err, {"warning: stdout was closed before the end"});
  run.expect_exported();
  fs::remove_all(run.out);
  const Outcome both = shell(fmt::format("set -o pipefail; {} --export {} 2>&1 | head -n 1", train, run.out));
  EXPECT_EQ(both.code, 0);
  run.expect_exported();
  // A command that only prints ends with its reader.
  EXPECT_EQ(shell("set -o pipefail; \"$SLUICE\" config --keys | true; exit ${PIPESTATUS[0]}").err, "");
}

TEST(Interrupted, ALossThatIsNotANumberLeavesNothingAndSaysSo) {
  const LongRun run(4);
  std::vector<std::string> command = run.command;
  command.insert(command.end(), {"--optimizer.lr", "1e38"});
  const Outcome outcome = sluice(command);
  EXPECT_EQ(outcome.code, 1);
  // How many steps it takes to get there is the arithmetic's.
  const std::string last = lines_of(outcome.err).back();
  EXPECT_TRUE(last.starts_with("       the weights of ")) << last;
  EXPECT_TRUE(last.ends_with(" are lost; " + run.out + " is as it was before")) << last;
  run.expect_nothing();
}

TEST(Interrupted, WeightsThatAreNotFiniteAreNotExported) {
  const LongRun run(4);
  std::vector<std::string> command = run.command;
  command.insert(command.end(), {"--optimizer.lr", "1e38", "--optimizer.weight_decay", "10",
                                 "--step_scheduler.max_steps", "1", "--benchmark.warmup_steps", "0"});
  const Outcome outcome = sluice(command);
  EXPECT_EQ(outcome.code, 1);
  expect_in(outcome.err, {" are not finite", "lower optimizer.lr", "the weights of 1 trained step are lost"});
  run.expect_nothing();
}

// A limit of a file's size is like a full disk: its write fails.
TEST(Interrupted, AnExportThatCannotBeWrittenLeavesNothingAndSaysSo) {
  const LongRun run(4);
  const Outcome outcome =
      shell(fmt::format("ulimit -f 8; \"$SLUICE\" train {} --export {}/deeper/out", run.command[1], run.out));
  EXPECT_EQ(outcome.code, 1);
  expect_in(outcome.err, {"error: cannot write ", "File too large"});
  EXPECT_EQ(lines_of(outcome.err).back(),
            "       the weights of 4 trained steps are lost; " + run.out + "/deeper/out is as it was before");
  run.expect_nothing();
}

TEST(Interrupted, NothingIsTrainedForADiskThatIsTooSmall) {
  const LongRun run(4);
  std::vector<std::string> command = run.command;
  command.insert(command.end(), {"--model.config.num_experts", "16384", "--model.config.moe_intermediate_size", "65536",
                                 "--model.config.hidden_size", "4096"});
  const Outcome outcome = sluice(command);
  EXPECT_EQ(outcome.code, 2);
  expect_in(outcome.err, {"error: --export needs ", " are free where ", "make room there"});
  run.expect_nothing();
}

TEST(Interrupted, OnlyOneRunWritesADirectory) {
  const LongRun run(4);
  const std::string train = fmt::format("\"$SLUICE\" train {} --export {}", run.command[1], run.out);
  const Outcome outcome = shell(fmt::format(
      "{0} --step_scheduler.max_steps 1000000 2>{1} & first=$!; until grep -q 'step 1/' {1}; do sleep 0.01; done; {0}; "
      "code=$?; kill -TERM $first; wait $first; exit $code",
      train, run.folder.path("err")));
  EXPECT_EQ(outcome.code, 2) << outcome.err;
  expect_in(outcome.err, {"another run is writing " + run.out});
  run.expect_exported();
  const Outcome later = sluice(run.command);
  EXPECT_EQ(later.code, 2);
  expect_in(later.err, {"out is not empty: "});
}

TEST(Interrupted, AConversionLeavesNothingAndIsRepeated) {
  const Folder folder;
  const std::string source = hub_directory(folder, "qwen3_moe"), out = folder.path("results/out");
  fs::create_directories(folder.path("results/.out.sluice-unfinished"));
  write_file_atomic(folder.path("results/.out.sluice-unfinished/model.safetensors.tmp-1"), "of one that was killed");
  const Outcome full = shell(fmt::format("ulimit -f 8; \"$SLUICE\" convert {} {}", source, out));
  EXPECT_EQ(full.code, 1);
  EXPECT_EQ(names_in(folder.path("results")), std::vector<std::string>{});
  ASSERT_EQ(sluice({"convert", source, out}).code, 0);
  EXPECT_EQ(names_in(folder.path("results")), (std::vector<std::string>{"out"}));
  const Outcome again = sluice({"convert", source, out});
  EXPECT_EQ(again.code, 2);
  expect_in(again.err, {"out is not empty: ", "--overwrite"});
  EXPECT_EQ(sluice({"convert", source, out, "--overwrite", "--dtype", "bf16"}).code, 0);
  EXPECT_EQ(names_in(folder.path("results")), (std::vector<std::string>{"out"}));
  expect_in(read_file(fs::path(out) / "config.json", 1 << 16), {R"("dtype": "bfloat16")"});
}

}  // namespace
}  // namespace sluice::test
