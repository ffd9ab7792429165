// A run in several processes is the run in one: the same losses and weights, bit for bit, and the same end whatever
// happens to one of them.
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <filesystem>

#include "base/file.h"
#include "e2e/program.h"

namespace sluice::test {
namespace {

constexpr int kRanks = 4, kSteps = 6;
#if defined(__SANITIZE_ADDRESS__)
constexpr int kKilledSteps = 100;
#else
constexpr int kKilledSteps = 400;
#endif

class ProcessRun : public testing::Test {
 protected:
  // Two stages, of two ranks that shard parameters and share the experts.
  std::string configuration(int steps) const {
    return fmt::format(
               "step_scheduler: {{global_batch_size: 8, local_batch_size: 1, max_steps: {}, ckpt_every_steps: 2}}\n",
               steps) +
           small_model() + "distributed: {pp_size: 2, ep_size: 2}\noptimizer: {lr: 0.003}\n";
  }
  std::string train(const std::string& name, const std::string& more = "") const {
    return fmt::format("train '{}' --ranks {} --checkpoint.checkpoint_dir '{}' {}", file_, kRanks, folder_.path(name),
                       more);
  }
  // Every rank's weights and moments at a step, and the losses of all steps.
  std::string result(const std::string& name, int step = kSteps) const {
    std::string all;
    for (int rank = 0; rank < kRanks; ++rank) {
      all += read_file(folder_.path(fmt::format("{}/step-{}/rank-{:05}.safetensors", name, step, rank)), 1 << 24);
    }
    for (const std::string& line : lines_of(read_file(folder_.path(name + "/training.jsonl"), 1 << 24))) {
      const auto json = nlohmann::json::parse(line);
      all += fmt::format("{} {}\n", json.at("step").get<int>(), json.at("loss").get<double>());
    }
    return all;
  }
  // Two processes as launchers of other kinds start them; the last line of `out` has their codes.
  static Outcome by_hand(const std::string& first, const std::string& second, const std::string& before_second = "") {
    const std::string names = "MASTER_ADDR=127.0.0.1 MASTER_PORT=$port WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 ";
    return shell("port=$((20000 + $$ % 20000)); (" + before_second + names + "RANK=1 LOCAL_RANK=1 $SLUICE " + second +
                 ") & " + names + "RANK=0 LOCAL_RANK=0 $SLUICE " + first + "; code=$?; wait $!; echo $code $?");
  }
  // Whether a process of a run is left.
  static bool any_left(const std::string& what) {
    return shell("pgrep -f -- '^[^ ]*/sluice [a-z]+ .*" + what + "' >&2").code == 0;
  }

  Folder folder_;
  std::string file_ = folder_.file("run.yaml", configuration(kSteps));
};

TEST_F(ProcessRun, HasTheBitsOfThreads) {
  ASSERT_EQ(shell("$SLUICE " + train("threads")).code, 0);
  for (const int processes : {2, 4}) {
    const std::string name = fmt::format("processes{}", processes);
    const Outcome outcome = shell(fmt::format("$SLUICE launch --nproc {} -- {}", processes, train(name)));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.err.find("[1]"), std::string::npos) << "the first process speaks for all: " << outcome.err;
    expect_in(outcome.err, {fmt::format("4 ranks in {} processes on 1 host", processes)});
    EXPECT_TRUE(result(name) == result("threads")) << name;
  }
  const Outcome async = shell("$SLUICE launch --nproc 2 -- " + train("async", "--async-comm"));
  EXPECT_EQ(async.code, 0) << async.err;
  EXPECT_TRUE(result("async") == result("threads"));
}

TEST_F(ProcessRun, UnderMpirunToo) {
  if (shell("$SLUICE doctor | grep -q mpirun && command -v mpirun").code != 0) {
    GTEST_SKIP() << "there is no mpirun here, or this build is without MPI";
  }
  ASSERT_EQ(shell("$SLUICE " + train("threads")).code, 0);
  const Outcome outcome = shell(
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --oversubscribe -n 4 $SLUICE " + train("mpi"));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(result("mpi") == result("threads"));
}

TEST_F(ProcessRun, GoesOnInAnotherNumberOfProcesses) {
  ASSERT_EQ(shell("$SLUICE " + train("threads")).code, 0);
  ASSERT_EQ(shell("$SLUICE launch --nproc 4 -- " + train("moved",
                                                         "--step_scheduler.max_steps 2 "
                                                         "--lr_scheduler.lr_decay_steps 6"))
                .code,
            0);
  const Outcome outcome =
      shell("$SLUICE launch --nproc 2 -- " + train("moved", "--resume --lr_scheduler.lr_decay_steps 6"));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(result("moved") == result("threads"));
}

TEST_F(ProcessRun, OneThatIsKilledEndsAllAndTheRestartHasTheSameBits) {
  const std::string steps = fmt::format("--step_scheduler.max_steps {}", kKilledSteps);
  ASSERT_EQ(shell("$SLUICE " + train("whole", steps)).code, 0);
  const Outcome outcome =
      shell("$SLUICE launch --nproc 4 --restarts 1 -- " + train("killed", "--resume " + steps) +
            " & launcher=$!; for i in $(seq 400); do [ -e '" + folder_.path("killed/step-2") +
            "' ] && break; sleep 0.02; done; kill -9 $(pgrep -P $launcher | tail -1); wait $launcher");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  expect_in(outcome.err, {"killed by SIGKILL"});
  EXPECT_TRUE(result("killed", kKilledSteps) == result("whole", kKilledSteps));
  EXPECT_FALSE(any_left(folder_.path("killed")));
}

// As on two hosts: their launchers start all again when one process is killed on the second.
TEST_F(ProcessRun, TwoLaunchersStartAllAgainAndTheBitsAreTheSame) {
  constexpr int kMadeSteps = 200;
  const std::string steps =
      fmt::format("--step_scheduler.max_steps {} --step_scheduler.ckpt_every_steps 20", kMadeSteps);
  ASSERT_EQ(shell("$SLUICE " + train("whole", steps)).code, 0);
  const std::string run = " -- " + train("killed", "--resume " + steps);
  const std::string launch = "$SLUICE launch --nproc 2 --nnodes 2 --master 127.0.0.1:$port --restarts 1 --node-rank ";
  const Outcome outcome =
      shell("port=$((20000 + $$ % 20000)); " + launch + "1" + run + " & second=$!; " + launch + "0" + run +
            " & first=$!; for i in $(seq 400); do [ -e '" + folder_.path("killed/step-20") +
            "' ] && break; sleep 0.02; done; kill -9 $(pgrep -P $second | tail -1); wait $first; "
            "code=$?; wait $second; echo $code $?");
  EXPECT_TRUE(outcome.out.ends_with("\n0 0\n")) << outcome.out << outcome.err;
  expect_in(outcome.err, {"process 3 of 4", "killed by SIGKILL", "restart 1 of 1: all 4 processes"});
  EXPECT_TRUE(result("killed", kMadeSteps) == result("whole", kMadeSteps));
  EXPECT_FALSE(any_left(folder_.path("killed")));
}

TEST_F(ProcessRun, ASignalSavesAndTheRunGoesOn) {
  const std::string steps = "--step_scheduler.max_steps 100000 --step_scheduler.ckpt_every_steps 50000";
  const Outcome outcome = shell(
      "$SLUICE launch --nproc 2 -- " + train("asked", steps) + " & launcher=$!; for i in $(seq 400); do [ -s '" +
      folder_.path("asked/training.jsonl") + "' ] && break; sleep 0.02; done; kill -USR1 $launcher; wait $launcher");
  constexpr int kUsr1 = 10;
  EXPECT_EQ(outcome.code, 128 + kUsr1) << outcome.err;
  expect_in(outcome.out, {"is saved; to go on:"});
  EXPECT_FALSE(any_left(folder_.path("asked")));
}

TEST_F(ProcessRun, AnotherConfigurationInOneOfThemIsFoundBeforeTheFirstStep) {
  const std::string other = folder_.file("other.yaml", configuration(kSteps) + "seed: 7\n");
  std::string second = train("differ");
  second.replace(second.find(file_), file_.size(), other);
  const Outcome outcome = by_hand(train("differ"), second);
  EXPECT_TRUE(outcome.out.ends_with("2 2\n")) << outcome.out << outcome.err;
  expect_in(outcome.err, {"configuration differs", "seed: 7"});
  EXPECT_FALSE(std::filesystem::exists(folder_.path("differ")));
  // What a file says beside its settings is nobody's business.
  const std::string words = folder_.file("words.yaml", "# as on the other host\n" + configuration(kSteps));
  second.replace(second.find(other), other.size(), words);
  const Outcome alike = by_hand(train("differ"), second);
  EXPECT_TRUE(alike.out.ends_with("0 0\n")) << alike.out << alike.err;
}

// As on two hosts whose copies of the data are not the same.
TEST_F(ProcessRun, OtherDataInOneOfThemAreFoundBeforeTheFirstStep) {
  std::string text = configuration(kSteps);
  const std::string mock = "dataset: {_target_: mock, seq_len: 16}";
  text.replace(text.find(mock), mock.size(), "dataset: {_target_: bytes, path: text, seq_len: 16, split: all}");
  const std::string file = folder_.file("bytes.yaml", text);
  std::string same = train("bytes");
  same.replace(same.find(file_), file_.size(), file);
  const Outcome made = shell(fmt::format("mkdir '{0}' '{1}' && seq 2000 > '{0}/text' && seq 2001 4000 > '{1}/text'",
                                         folder_.path("a"), folder_.path("b")));
  ASSERT_EQ(made.code, 0) << made.err;
  const auto run = [&](const std::string& second) {
    return shell(
        "SLUICE=$(realpath $SLUICE); port=$((20000 + $$ % 20000)); export MASTER_ADDR=127.0.0.1 "
        "MASTER_PORT=$port WORLD_SIZE=2 LOCAL_WORLD_SIZE=2; (cd '" +
        folder_.path(second) + "'; RANK=1 LOCAL_RANK=1 $SLUICE " + same + ") & cd '" + folder_.path("a") +
        "'; RANK=0 LOCAL_RANK=0 $SLUICE " + same + "; code=$?; wait $!; echo $code $?");
  };
  const Outcome differ = run("b");
  EXPECT_TRUE(differ.out.ends_with("2 2\n")) << differ.out << differ.err;
  expect_in(differ.err, {"the dataset differs: ", " bytes of text with hash "});
  EXPECT_FALSE(std::filesystem::exists(folder_.path("bytes")));
  const Outcome alike = run("a");
  EXPECT_TRUE(alike.out.ends_with("0 0\n")) << alike.out << alike.err;
}

TEST_F(ProcessRun, WhereTheFirstIsKilledTheNextNamesIt) {
  const std::string steps = "--step_scheduler.max_steps 100000 --step_scheduler.ckpt_every_steps 50000";
  const std::string names = "MASTER_ADDR=127.0.0.1 MASTER_PORT=$port WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 ",
                    words = " $SLUICE " + train("first", steps);
  const Outcome outcome =
      shell("port=$((20000 + $$ % 20000)); " + names + "RANK=1 LOCAL_RANK=1" + words + " & second=$!; " + names +
            "RANK=0 LOCAL_RANK=0" + words + " & first=$!; until [ -s '" + folder_.path("first/training.jsonl") +
            "' ]; do sleep 0.02; done; kill -9 $first; wait $first; code=$?; wait $second; "
            "echo $code $?");
  EXPECT_TRUE(outcome.out.ends_with("137 1\n")) << outcome.out << outcome.err;
  expect_in(outcome.err, {"ranks 0-1 on host ", " ended or cannot be reached"});
}

// As on a host whose disk is full: the run goes on until its last save, and who knows why says it.
TEST_F(ProcessRun, OneThatCannotWriteSaysSoAndTheLastSaveIsAnError) {
  const Outcome outcome = by_hand(train("full"), train("full"), "ulimit -f 8;");
  EXPECT_TRUE(outcome.out.ends_with("1 1\n")) << outcome.out << outcome.err;
  expect_in(outcome.err, {"step 2 is not saved: ", "step 6 is not saved: ", "File too large"});
  EXPECT_FALSE(std::filesystem::exists(folder_.path("full/step-6")));
}

// What both have in common is in the output of `bench --json` and `eval --json`.
nlohmann::json losses_in(const std::string& file) {
  const auto json = nlohmann::json::parse(read_file(file, 1 << 24));
  return json.contains("rows") ? json.at("rows").at(0).at("loss") : json.at("loss");
}

TEST_F(ProcessRun, BenchmarksAndEvaluationsHaveTheBitsOfThreads) {
  const std::string threads = folder_.path("threads.json"), processes = folder_.path("processes.json");
  const std::string file = " '" + file_ + "' --overwrite --json ";
  // A benchmark has one rank a process where nothing is said.
  for (const auto& [command, alone] : {std::pair<std::string, std::string>{"bench --steps 1 --threads 1", " --ranks 2"},
                                       {"eval --ranks 4 --batches 2", ""}}) {
    SCOPED_TRACE(command);
    ASSERT_EQ(shell(fmt::format("$SLUICE {}{}{}{}", command, alone, file, threads)).code, 0);
    const Outcome outcome = shell(fmt::format("$SLUICE launch --nproc 2 -- {}{}{}", command, file, processes));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ((outcome.out + outcome.err).find("[1]"), std::string::npos) << outcome.out << outcome.err;
    EXPECT_EQ(losses_in(processes), losses_in(threads));
    if (command.starts_with("eval")) continue;
    expect_in(outcome.out, {"of 2 processes"});
    const auto row = nlohmann::json::parse(read_file(processes, 1 << 24)).at("rows").at(0);
    EXPECT_EQ(row.at("processes"), 2);
    EXPECT_GT(row.at("max_memory_bytes"), 0);
    EXPECT_EQ(row.at("max_memory_bytes"),
              nlohmann::json::parse(read_file(threads, 1 << 24)).at("rows").at(0).at("max_memory_bytes"));
  }
  const Outcome several = shell("$SLUICE launch --nproc 2 -- bench R4 R6 --layout row --scale tiny");
  EXPECT_EQ(several.code, 2);
  expect_in(several.err, {"has 8 ranks and", "has 64: several processes run rows of as many ranks as each other"});
}

TEST_F(ProcessRun, WhoIsWhoCanBeSaidOnTheCommandLine) {
  ASSERT_EQ(shell("$SLUICE " + train("threads")).code, 0);
  const std::string self = " --processes 2 --local-processes 2 --master 127.0.0.1:$port --process ";
  // The names of another launcher say something else.
  const Outcome outcome =
      shell("port=$((20000 + $$ % 20000)); export RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 " +
            ("LOCAL_WORLD_SIZE=1; $SLUICE " + train("flags", self)) + "1 --local-process 1 & $SLUICE " +
            train("flags", self) + "0 --local-process 0; code=$?; wait $!; echo $code $?");
  EXPECT_TRUE(outcome.out.ends_with("0 0\n")) << outcome.out << outcome.err;
  EXPECT_TRUE(result("flags") == result("threads"));
  const Outcome half = shell("$SLUICE " + train("half", "--process 1 --processes 2"));
  EXPECT_EQ(half.code, 2);
  EXPECT_EQ(
      half.err,
      "error: command line: --process 1 and --processes 2 are set, --local-process and --local-processes are not\n"
      "       give all four, or none: then the launcher's names are read\n");
}

TEST_F(ProcessRun, AMistakeOfAllIsSaidOnceAndThatOfOneIsSaid) {
  for (const std::string mistake : {"--step_scheduler.max_steps x", "--typo", "--model.typo 1"}) {
    const Outcome all = shell("$SLUICE launch --nproc 3 -- " + train("never", mistake) + "; echo $?");
    const size_t first = all.err.find("error: ");
    EXPECT_EQ(all.out, "2\n") << all.err;
    EXPECT_EQ(all.err.find("[1] error"), std::string::npos) << all.err;
    EXPECT_EQ(all.err.find("[2] error"), std::string::npos) << all.err;
    EXPECT_NE(first, std::string::npos);
  }
  // As with a file that is another one on the second host, whose launcher hears of nothing.
  const Outcome one =
      shell("RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 $SLUICE train '" +
            folder_.file("other.yaml", configuration(kSteps) + "sead: 7\n") + "' --ranks 4");
  EXPECT_EQ(one.code, 2);
  expect_in(one.err, {"sead is not a key"});
}

TEST_F(ProcessRun, AProcessThatIsKeptFromProcessorsSaysSo) {
  const std::string run =
      "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1 OMPI_COMM_WORLD_LOCAL_RANK=0 "
      "OMPI_COMM_WORLD_LOCAL_SIZE=1 taskset -c $(taskset -pc $$ | sed 's/.*: //; s/[,-].*//') "
      "$SLUICE eval '" +
      file_ + "' --batches 1";
  if (shell("[ $(nproc) -gt 1 ] && command -v taskset").code != 0) GTEST_SKIP() << "one core, or no taskset";
  expect_in(shell(run + "; true").err, {"process 0 on host", "may run on 1 of", "mpirun --bind-to none"});
}

TEST_F(ProcessRun, WhatRunsInOneProcessSaysSo) {
  const Outcome outcome = shell("$SLUICE launch --nproc 2 -- generate " + folder_.path("") + " --prompt x");
  EXPECT_EQ(outcome.code, 2);
  expect_in(outcome.err, {"sluice generate runs in one process, and", "has started 2"});
}

}  // namespace
}  // namespace sluice::test
