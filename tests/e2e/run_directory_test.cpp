// Where a run saves itself: what is there already, what is in the way, what cannot be read, what it is called.
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "e2e/program.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

std::string run_config(int steps) {
  return fmt::format(
             "step_scheduler: {{global_batch_size: 2, local_batch_size: 1, max_steps: {}, ckpt_every_steps: 2}}\n",
             steps) +
         small_model() + "optimizer: {lr: 0.003}\n";
}

// A directory where commands are given; the run's file is run.yaml.
struct Place {
  explicit Place(int steps = 4) { folder.file("run.yaml", run_config(steps)); }
  Outcome here(const std::string& line) const { return shell(fmt::format("cd {} && {}", folder.path("."), line)); }
  std::string path(const std::string& name) const { return folder.path(name); }
  std::string text(const std::string& name) const { return read_file(folder.path(name), 1 << 24); }

  Folder folder;
};

TEST(RunDirectory, WhatWouldBeInTheWayOfASaveIsSaidAtTheStart) {
  const Place place;
  fs::create_directory(place.path("run"));
  fs::create_symlink("nowhere", place.path("run/step-4"));
  const std::string command = "$SLUICE train run.yaml --checkpoint.checkpoint_dir run";
  const Outcome refused = place.here(command);
  EXPECT_EQ(refused.code, 2);
  expect_in(refused.err, {"run/step-4 is a link to nowhere, where nothing is", "mv run/step-4 run/step-4.1"});
  EXPECT_FALSE(fs::exists(place.path("run/training.jsonl"))) << "nothing was trained";
  const Outcome advised = place.here("mv run/step-4 run/step-4.1 && " + command);
  EXPECT_EQ(advised.code, 0) << advised.err;
  // And where a run goes on.
  write_file_atomic(place.path("run/step-6"), "a file");
  const Outcome resumed = place.here(command + " --resume --step_scheduler.max_steps 8");
  EXPECT_EQ(resumed.code, 2);
  expect_in(resumed.err, {"run/step-6 is a file, and the checkpoint of step 6 would be saved under this name"});
  const Outcome named = place.here("$SLUICE train run.yaml --resume run/step-4 --step_scheduler.max_steps 8");
  EXPECT_EQ(named.code, 2);
  expect_in(named.err, {"run/step-6 is a file"});
}

TEST(RunDirectory, TheLogOfAnEarlierRunIsSetAside) {
  const Place place;
  fs::create_directory(place.path("run"));
  const std::string old = "{\"step\": 0, \"loss\": 2.5}\nand more\n";
  write_file_atomic(place.path("run/training.jsonl"), old);
  write_file_atomic(place.path("run/validation.jsonl"), old);
  write_file_atomic(place.path("run/training.jsonl.1"), "older");
  // With --resume too: it has no checkpoint, and nothing says that it was this run's.
  const std::string command = "$SLUICE train run.yaml --resume --checkpoint.checkpoint_dir run";
  const Outcome first = place.here(command);
  ASSERT_EQ(first.code, 0) << first.err;
  expect_in(first.err, {"run/training.jsonl is of an earlier run: it is training.jsonl.2 now",
                        "run/validation.jsonl is of an earlier run: it is validation.jsonl.1 now"});
  EXPECT_EQ(place.text("run/training.jsonl.2"), old);
  EXPECT_EQ(place.text("run/validation.jsonl.1"), old);
  EXPECT_EQ(place.text("run/training.jsonl.1"), "older");
  EXPECT_EQ(lines_of(place.text("run/training.jsonl")).size(), 4U);
  // Another one's, although this run restores a checkpoint: that is not of this directory.
  fs::create_directory(place.path("other"));
  write_file_atomic(place.path("other/training.jsonl"), "{\"step\": 1}\n{\"step\": 9}\n");
  const Outcome restored =
      place.here("$SLUICE train run.yaml --checkpoint.restore_from run/step-2 --checkpoint.checkpoint_dir other");
  ASSERT_EQ(restored.code, 0) << restored.err;
  expect_in(restored.err, {"other/training.jsonl is of an earlier run: it is training.jsonl.1 now"});
  EXPECT_EQ(lines_of(place.text("other/training.jsonl")).size(), 2U);
}

// Ended before its first checkpoint a run has a log and nothing else.
TEST(RunDirectory, TheLogOfTheSameRunIsCut) {
  const Place place;
  const auto ended_early = [&](const std::string& name) {
    for (const char* const step : {"/step-2", "/step-4"}) fs::remove_all(place.path(name + step));
    fs::remove(place.path(name + "/LATEST"));
  };
  const std::string command =
      "$SLUICE train run.yaml --checkpoint.checkpoint_dir run --logging.jsonl all.jsonl --resume";
  ASSERT_EQ(place.here(command).code, 0);
  ended_early("run");
  const Outcome again = place.here(command);
  ASSERT_EQ(again.code, 0) << again.err;
  expect_in(again.err, {"run/training.jsonl: took out 4 lines of steps after 0", "all.jsonl: took out 4 lines"});
  EXPECT_FALSE(fs::exists(place.path("run/training.jsonl.1")));
  EXPECT_EQ(lines_of(place.text("run/training.jsonl")).size(), 4U);
  EXPECT_EQ(lines_of(place.text("all.jsonl")).size(), 4U);
  // Another configuration is another run.
  ended_early("run");
  const Outcome other = place.here("$SLUICE train run.yaml --checkpoint.checkpoint_dir run --resume --seed 3");
  ASSERT_EQ(other.code, 0) << other.err;
  expect_in(other.err, {"run/training.jsonl is of an earlier run: it is training.jsonl.1 now"});
  // One that began with another run's checkpoint.
  const std::string restored =
      "$SLUICE train run.yaml --seed 3 --checkpoint.restore_from run/step-2 --checkpoint.checkpoint_dir second";
  ASSERT_EQ(place.here(restored).code, 0);
  ended_early("second");
  const Outcome requeued = place.here(restored);
  ASSERT_EQ(requeued.code, 0) << requeued.err;
  expect_in(requeued.err, {"second/training.jsonl: took out 2 lines of steps after 2"});
  EXPECT_FALSE(fs::exists(place.path("second/training.jsonl.1")));
}

TEST(RunDirectory, APipesRunHasANameThatStays) {
  const Place place;
  const Outcome first = place.here("$SLUICE train <(cat run.yaml) --resume");
  ASSERT_EQ(first.code, 0) << first.err;
  expect_in(first.out, {"checkpoints in runs/unnamed: "});
  const Outcome again =
      place.here("exec 7< <(cat run.yaml); $SLUICE train /dev/fd/7 --resume --step_scheduler.max_steps 6");
  ASSERT_EQ(again.code, 0) << again.err;
  expect_in(again.out, {"runs/unnamed: goes on from step 4 of 6"});
  for (const char* const input :
       {"cat run.yaml | $SLUICE train /dev/stdin", "$SLUICE train /dev/stdin < run.yaml",
        "cat run.yaml | $SLUICE train /dev/fd/0", "$SLUICE train /proc/self/fd/0 < run.yaml"}) {
    const Outcome outcome = place.here(fmt::format("{} --resume", input));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    expect_in(outcome.out, {"runs/stdin"});
  }
  EXPECT_FALSE(fs::exists(place.path("runs/stdin-2")));
}

// The pipe is gone then.
TEST(RunDirectory, WhatIsSaidAboutGoingOnWorksForAPipeToo) {
  const Place place(1'000'000);
  const Outcome stopped = place.here("$SLUICE train <(cat run.yaml) --step_scheduler.max_minutes 0.002");
  ASSERT_EQ(stopped.code, 0) << stopped.err;
  const std::string begin = "  sluice train ";
  const size_t at = stopped.out.find(begin);
  ASSERT_NE(at, std::string::npos) << stopped.out;
  const std::string command = stopped.out.substr(at + begin.size(), stopped.out.find('\n', at) - at - begin.size());
  const Outcome again = place.here("$SLUICE train " + command);
  EXPECT_EQ(again.code, 0) << again.err;
  expect_in(again.out, {"runs/unnamed: goes on from step "});
}

TEST(RunDirectory, WhatCannotBeReadIsNotCalledEmpty) {
  const Place place;
  ASSERT_EQ(place.here("$SLUICE train run.yaml").code, 0);
  fs::create_symlink("loop", place.path("loop"));
  write_file_atomic(place.path("note"), "a file");
  const auto refused = [&](const std::string& arguments, const std::string& said) {
    const Outcome outcome = place.here("$SLUICE train run.yaml " + arguments);
    EXPECT_EQ(outcome.code, 2) << arguments;
    expect_in(outcome.err, {said});
    EXPECT_EQ(outcome.err.find("there is no"), std::string::npos) << outcome.err;
  };
  const std::string hint = "name the directory of a run, or one of its checkpoints, that can be read and written here";
  refused("--resume=note", "cannot read directory note: Not a directory");
  refused("--resume=note", hint);
  refused("--resume=note/run", "cannot read directory note/run: Not a directory");
  refused("--resume loop", "cannot read loop/manifest.json: Too many levels of symbolic links");
  refused("--resume loop/run", "cannot read loop/run/manifest.json: Too many levels of symbolic links");
  refused("--checkpoint.restore_from loop/step-2", "cannot read loop/step-2: Too many levels of symbolic links");
  refused("--checkpoint.checkpoint_dir loop/run", "cannot read loop/run: Too many levels of symbolic links");
  if (::geteuid() == 0) return;  // whom permissions do not stop
  const auto closed = [&](const std::string& directory, fs::perms left, const std::string& arguments,
                          const std::string& said) {
    fs::permissions(place.path(directory), left);
    refused(arguments, said + ": Permission denied");
    fs::permissions(place.path(directory), fs::perms::owner_all);
  };
  using enum fs::perms;
  closed("runs", none, "--resume runs/run", "cannot read runs/run/manifest.json");
  closed("runs", none, "--resume", "cannot read directory runs");
  closed("runs/run", none, "--resume runs/run", "cannot read runs/run/manifest.json");
  closed("runs/run", owner_exec, "--resume runs/run", "cannot read directory runs/run");
  closed("runs/run", none, "--resume", "cannot read directory runs/run");
  closed("runs/run/step-4", none, "--resume runs/run/step-4", "cannot read runs/run/step-4/manifest.json");
  closed("runs", none, "--checkpoint.restore_from runs/run/step-2", "cannot read runs/run/step-2");
}

TEST(RunDirectory, WhatIsInPlaceOfRunsIsNamed) {
  const Place place;
  for (const char* const resume : {"", " --resume"}) {
    fs::create_symlink("disk/runs", place.path("runs"));
    const Outcome dangling = place.here(fmt::format("$SLUICE train run.yaml{}", resume));
    EXPECT_EQ(dangling.code, 2);
    expect_in(dangling.err, {"cannot make directory runs: runs is a link to disk/runs, where nothing is",
                             "make what it leads to (mkdir -p disk/runs), remove the link (rm runs)"});
    fs::remove(place.path("runs"));
    write_file_atomic(place.path("runs"), "a file");
    const Outcome file = place.here(fmt::format("$SLUICE train run.yaml{}", resume));
    EXPECT_EQ(file.code, 2);
    expect_in(file.err, {"cannot make directory runs: runs is a file", "(mv runs runs.1)"});
    fs::remove(place.path("runs"));
  }
  // A name in it that something else has is passed over.
  fs::create_directory(place.path("runs"));
  write_file_atomic(place.path("runs/run"), "a file");
  fs::create_symlink("nowhere", place.path("runs/run-2"));
  const Outcome outcome = place.here("$SLUICE train run.yaml --resume");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  expect_in(outcome.out, {"checkpoints in runs/run-3: "});
}

// Mapped it would keep its room on the disk after its removal, which a full disk cannot spare.
TEST(RunDirectory, ARunHoldsNoFileOfTheCheckpointItWentOnFrom) {
  const Place place;
  ASSERT_EQ(place.here("$SLUICE train run.yaml --resume").code, 0);
  const Outcome outcome = place.here(
      "exec 2>/dev/null; $SLUICE train run.yaml --resume --step_scheduler.max_steps 1000000 "
      "--step_scheduler.ckpt_every_steps 1000000 > /dev/null & "
      "until grep -q '\"step\":8,' runs/run/training.jsonl; do sleep 0.02; done; "
      "grep -c safetensors /proc/$!/maps; kill $!; wait $!");
  EXPECT_EQ(outcome.code, 128 + 15) << "it was ended by the signal, saved";
  EXPECT_EQ(outcome.out, "0\n");
}

}  // namespace
}  // namespace sluice::test
