// `sluice launch` with this program: its words, its output, its end.
#include <gtest/gtest.h>

#include <algorithm>

#include "e2e/program.h"

namespace sluice::test {
namespace {

TEST(Launch, StartsThisProgramWithTheWordsBehindTheDashes) {
  const Folder folder;
  const std::string file = folder.file("run.yaml", small_config());
  // Settings of the command are its own.
  const Outcome outcome = sluice({"launch", "--nproc", "2", "--", "config", file, "--seed", "77"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  const std::vector<std::string> lines = lines_of(outcome.out);
  const auto of = [&](const std::string& prefix) {
    return std::ranges::count_if(lines, [&](const std::string& line) {
      return line.starts_with(prefix + "seed") && line.find("77") != std::string::npos;
    });
  };
  EXPECT_EQ(of(""), 1) << outcome.out;
  EXPECT_EQ(of("[1] "), 1);
}

TEST(Launch, EndsWithTheCodeOfTheFirstFailure) {
  const Outcome outcome = sluice({"launch", "--nproc", "2", "--restarts", "2", "--", "config", "nowhere.yaml"});
  EXPECT_EQ(outcome.code, 2);
  expect_in(outcome.err, {"error: cannot open nowhere.yaml: No such file or directory\n", "error: process ", " of 2 ",
                          "ended with exit code 2 (a mistake in the command or its files)"});
  EXPECT_EQ(outcome.err.find("restart"), std::string::npos);
  EXPECT_EQ(outcome.out, "");
}

TEST(Launch, AWholeHelpIsPrintedOnce) {
  EXPECT_EQ(sluice({"launch", "--nproc", "2", "--", "train", "--help"}).out, sluice({"train", "--help"}).out);
}

TEST(Launch, WithoutOptionsItReadsThoseOfTorchrun) {
  const std::string launch = " $SLUICE launch -- config --keys seed";
  const Outcome outcome = shell(
      "export PET_NPROC_PER_NODE=2 PET_NNODES=2 PET_MASTER_ADDR=127.0.0.1 PET_MASTER_PORT=$((20000 + $$ % 20000)); "
      "PET_NODE_RANK=1" +
      launch + " & PET_NODE_RANK=0" + launch + "; code=$?; wait $!; echo $code $?");
  expect_in(outcome.out, {"[1] seed", "[2] seed", "[3] seed", "0 0\n"});
  EXPECT_EQ(outcome.err, "");
}

}  // namespace
}  // namespace sluice::test
