// Runs that are killed, stopped, moved and damaged: what was saved stays whole, and the run goes on as if nothing had
// been.
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/file.h"
#include "e2e/program.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

#if defined(__SANITIZE_ADDRESS__)
constexpr int kKills = 4, kKilledSteps = 60, kLongestMs = 3000;
#else
constexpr int kKills = 20, kKilledSteps = 200, kLongestMs = 600;
#endif

std::string trained_config(int steps) {
  return fmt::format(
             "step_scheduler: {{global_batch_size: 4, local_batch_size: 1, max_steps: {}, ckpt_every_steps: 2}}\n",
             steps) +
         small_model() + "optimizer: {lr: 0.003}\n";
}

// A run in a directory of its own.
struct Place {
  explicit Place(int steps = 40) : file(folder.file("run.yaml", trained_config(steps))) {}
  std::vector<std::string> command(const std::string& name, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"train", file, "--checkpoint.checkpoint_dir", folder.path(name)};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  Outcome train(const std::string& name, const std::vector<std::string>& more = {}) const {
    return sluice(command(name, more));
  }
  std::string state(const std::string& name, int step) const {
    return read_file(folder.path(fmt::format("{}/step-{}/rank-00000.safetensors", name, step)), 1 << 24);
  }
  // Of the run's log, by line.
  std::vector<std::pair<int, double>> losses(const std::string& name) const {
    std::vector<std::pair<int, double>> list;
    for (const std::string& line : lines_of(read_file(folder.path(name + "/training.jsonl"), 1 << 24))) {
      const auto json = nlohmann::json::parse(line);
      list.emplace_back(json.at("step"), json.at("loss"));
    }
    return list;
  }

  Folder folder;
  std::string file;
};

void alter(const std::string& path, std::streamoff at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const char byte = static_cast<char>(file.get() ^ 1);
  file.seekp(at);
  file.put(byte);
}

// Kills from before the first step to behind the last: while it starts, saves every second step, renames, loads. A run
// that has come to its end is held to the uninterrupted one and begun anew, until there were as many kills.
TEST(Overnight, KilledAtAnyMomentItGoesOnWithTheSameBits) {
  const Place place(kKilledSteps);
  ASSERT_EQ(place.train("whole").code, 0);
  const std::string state = place.state("whole", kKilledSteps);
  const auto losses = place.losses("whole");
  std::mt19937 random(std::random_device{}());
  std::uniform_int_distribution<int> milliseconds(20, kLongestMs);
  std::string command;
  for (const std::string& word : place.command("killed", {"--resume"})) command += " '" + word + "'";
  for (int kills = 0, ends = 0; kills < kKills || ends == 0;) {
    const int after = kills < kKills ? milliseconds(random) : 100'000;
    SCOPED_TRACE(fmt::format("{} kills, {} ms", kills, after));
    const Outcome outcome =
        shell(fmt::format("timeout -s KILL {}.{:03} $SLUICE{}", after / 1000, after % 1000, command));
    if (outcome.code == 137) {
      ++kills;
      continue;
    }
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    ++ends;
    EXPECT_EQ(place.state("killed", kKilledSteps), state);
    EXPECT_EQ(place.losses("killed"), losses);
    fs::remove_all(place.folder.path("killed"));
  }
}

// Its own log too, whether the run was new or went on.
TEST(Overnight, ARunThatGoesBackTakesItsLinesBack) {
  const Place place(9);
  const std::string log = place.folder.path("own.jsonl");
  const Outcome outcome = place.train("run", {"--logging.jsonl", log, "--bad_steps.spike", "roll_back",
                                              "--bad_steps.spike_window", "4", "--bad_steps.spike_deviations", "0.5"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_in(outcome.err, {"goes back to its last checkpoint", "own.jsonl: took out "});
  std::vector<int> steps;
  for (const std::string& line : lines_of(read_file(log, 1 << 24))) {
    steps.push_back(nlohmann::json::parse(line).at("step").get<int>());
  }
  EXPECT_EQ(steps, (std::vector{1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

// Of several that begin at the same time one does; the others wait for it and go on where it ended.
TEST(Overnight, RunsThatBeginAtOnceAreOneRun) {
  const Place place(30);
  const Outcome outcome = shell("cd '" + place.folder.path("") + "' && for i in 1 2 3; do $SLUICE train '" +
                                place.file + "' --resume > $i.out 2> $i.err & done; wait; ls runs; cat *.err");
  EXPECT_TRUE(outcome.out.starts_with("run\n")) << outcome.out;
  EXPECT_EQ(outcome.out.find("is there already"), std::string::npos) << outcome.out;
  EXPECT_EQ(outcome.out.find("took out"), std::string::npos) << outcome.out;
  EXPECT_EQ(lines_of(read_file(place.folder.path("runs/run/training.jsonl"), 1 << 24)).size(), 30U);
  EXPECT_EQ(fs::read_symlink(place.folder.path("runs/run/LATEST")), "step-30");
}

// Only the file that the run itself wrote before is shortened.
TEST(Overnight, AnotherFileIsNoLogToGoOnWith) {
  const Place place(6);
  const std::string notes = place.folder.file("notes.txt", "mine\n"), own = place.folder.path("own.jsonl");
  ASSERT_EQ(place
                .train("run", {"--logging.jsonl", own, "--step_scheduler.max_steps", "4",
                               "--lr_scheduler.lr_decay_steps", "6"})
                .code,
            0);
  const Outcome refused = place.train("run", {"--resume", "--logging.jsonl", notes});
  EXPECT_EQ(refused.code, 2);
  expect_in(refused.err, {"notes.txt: it is there already", "--overwrite"});
  EXPECT_EQ(read_file(notes, 100), "mine\n");
  EXPECT_EQ(place.train("run", {"--resume", "--logging.jsonl", own}).code, 0);
  EXPECT_EQ(lines_of(read_file(own, 1 << 24)).size(), 6U);
}

TEST(Overnight, AValidationThatIsNoNumberIsNeverTheBest) {
  const Folder folder;
  const std::string file = folder.file(
      "run.yaml", trained_config(4) + "validation_dataset: {_target_: mock, seq_len: 16, num_samples: 4}\n");
  const std::vector<std::string> words = {
      "train", file, "--checkpoint.checkpoint_dir", folder.path("run"), "--step_scheduler.val_every_steps", "1"};
  std::vector<std::string> broken = words, mended = words;
  broken.insert(broken.end(),
                {"--optimizer.lr", "1e18", "--step_scheduler.ckpt_every_steps", "1", "--bad_steps.non_finite", "skip"});
  EXPECT_EQ(sluice(broken).code, 0);
  EXPECT_FALSE(fs::is_symlink(folder.path("run/LOWEST_VAL")));
  mended.insert(mended.end(), {"--resume", "--step_scheduler.max_steps", "6", "--bad_steps.non_finite", "skip"});
  const Outcome outcome = sluice(mended);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
}

TEST(Overnight, RestoringWithoutCheckpointsIsAnError) {
  const Place place(4);
  for (const std::vector<std::string>& asks :
       {std::vector<std::string>{"--resume"}, {"--checkpoint.restore_from", "a"}}) {
    std::vector<std::string> words = asks;
    words.insert(words.end(), {"--checkpoint.enabled", "false"});
    const Outcome outcome = place.train("run", words);
    EXPECT_EQ(outcome.code, 2);
    expect_in(outcome.err, {asks.front().substr(2), "checkpoint.enabled is false"});
  }
}

// A run that was ended before its last step was validated does that first when it goes on.
TEST(Overnight, ALateValidationMayBeTheBest) {
  const Folder folder;
  const std::string file = folder.file("run.yaml", trained_config(2) +
                                                       "validation_dataset: {_target_: mock, seq_len: 16, num_samples: "
                                                       "4}\nlr_scheduler: {lr_decay_steps: 2}\n");
  const std::vector<std::string> words = {
      "train", file, "--checkpoint.checkpoint_dir", folder.path("run"), "--step_scheduler.val_every_steps", "1"};
  const auto train = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = words;
    all.insert(all.end(), more.begin(), more.end());
    const Outcome outcome = sluice(all);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
  };
  train({"--step_scheduler.max_minutes", "1e-7"});
  EXPECT_FALSE(fs::is_symlink(folder.path("run/LOWEST_VAL")));
  // From here on it gets worse.
  train({"--resume", "--optimizer.lr", "3"});
  EXPECT_EQ(fs::read_symlink(folder.path("run/LATEST")), "step-2");
  EXPECT_EQ(fs::read_symlink(folder.path("run/LOWEST_VAL")), "step-1");
}

// A run that was killed between a checkpoint's name and what follows it.
TEST(Overnight, WhatAKilledSaveDidNotComeToIsDoneByTheNextRun) {
  const Place place(6);
  ASSERT_EQ(place.train("run").code, 0);
  const std::string run = place.folder.path("run");
  fs::remove(run + "/LATEST");
  fs::create_symlink("step-4", run + "/LATEST");
  fs::create_symlink("step-6", run + "/.LATEST.new");
  write_file_atomic(run + "/training.jsonl.tmp-17", "");
  EXPECT_EQ(place.train("run", {"--resume"}).code, 0);
  EXPECT_EQ(fs::read_symlink(run + "/LATEST"), "step-6");
  EXPECT_FALSE(fs::is_symlink(run + "/.LATEST.new"));
  EXPECT_FALSE(fs::exists(run + "/training.jsonl.tmp-17"));
  EXPECT_TRUE(fs::exists(run + "/step-4"));
  const Outcome exported = place.train(
      "run", {"--resume", "--checkpoint.max_recent_checkpoints", "1", "--export", place.folder.path("out")});
  EXPECT_EQ(exported.code, 0) << exported.err;
  EXPECT_FALSE(fs::exists(run + "/step-4"));
}

TEST(Overnight, AValidationIsMadeOnce) {
  const Place place(4);
  const std::vector<std::string> validation = {"--validation_dataset._target_",    "mock",
                                               "--validation_dataset.seq_len",     "16",
                                               "--validation_dataset.num_samples", "4"};
  ASSERT_EQ(place.train("run", validation).code, 0);
  const std::string log = place.folder.path("run/validation.jsonl"), before = read_file(log, 1 << 20);
  EXPECT_EQ(lines_of(before).size(), 1U);
  std::vector<std::string> again = validation;
  again.insert(again.end(), {"--resume", "--export", place.folder.path("out")});
  const Outcome outcome = place.train("run", again);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  expect_in(outcome.out, {"validation loss "});
  EXPECT_EQ(read_file(log, 1 << 20), before);
}

TEST(Overnight, ASignalSavesAndSaysHowToGoOn) {
  const Place place(1'000'000);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) {
    SCOPED_TRACE(signal);
    const std::string name = std::to_string(signal);
    const Outcome outcome =
        signalled(place.command(name, {"--step_scheduler.ckpt_every_steps", "1000000"}), "step 2/", {signal});
    EXPECT_EQ(outcome.code, 128 + signal) << outcome.out;
    expect_in(outcome.out, {"ending after this step and a save", "stopped: ", " is saved; to go on:", "sluice train "});
    const std::string latest = fs::read_symlink(place.folder.path(name + "/LATEST")).string();
    const Outcome again =
        signalled(place.command(name, {"--resume"}), "goes on from step " + latest.substr(5), {signal});
    expect_in(again.out, {"goes on from step " + latest.substr(5)});
  }
}

// As timeout sends it: to the program, and to its group.
TEST(Overnight, OneSignalThatComesTwiceCountsOnce) {
  const Place place(1'000'000);
  const Outcome outcome = signalled(place.command("run"), "step 2/", {SIGTERM, SIGTERM});
  EXPECT_EQ(outcome.code, 128 + SIGTERM);
  expect_in(outcome.out, {" is saved; to go on:"});
}

TEST(Overnight, ASecondSignalLeavesTheLastCheckpointWhole) {
  const Place place(1'000'000);
  const Outcome outcome =
      signalled(place.command("run", {"--step_scheduler.global_batch_size", "2000"}), "saved ", {SIGINT, SIGTERM});
  EXPECT_TRUE(outcome.code == 128 + SIGTERM || outcome.code == 128 + SIGINT) << outcome.out;
  const Outcome again =
      place.train("run", {"--resume", "--step_scheduler.max_steps", "2", "--step_scheduler.global_batch_size", "2000"});
  EXPECT_EQ(again.code, 0) << again.err;
  expect_in(again.out, {"/run: "});
}

TEST(Overnight, OneCommandStartsAndGoesOn) {
  const Place place(8);
  // runs/NAME is in the directory where the command is given.
  const std::string here = fmt::format("cd {} && ", place.folder.path(""));
  const Outcome first = shell(here + "$SLUICE train run.yaml --resume");
  ASSERT_EQ(first.code, 0) << first.err;
  expect_in(first.err, {"there is no checkpoint of this configuration in runs/run*: the run begins in runs/run"});
  const Outcome second = shell(here + "$SLUICE train run.yaml --resume --step_scheduler.max_steps 10");
  ASSERT_EQ(second.code, 0) << second.err;
  expect_in(second.out, {"runs/run: goes on from step 8 of 10", "done: 10 steps, 2 of them now"});
  const Outcome other = shell(here + "$SLUICE train run.yaml --resume --optimizer.eps 1e-5");
  ASSERT_EQ(other.code, 0) << other.err;
  expect_in(other.err, {"optimizer.eps is 1e-08 in the checkpoint and 1e-05 here", "the run begins in runs/run-2"});
  const Outcome fresh = shell(here + "$SLUICE train run.yaml");
  ASSERT_EQ(fresh.code, 0) << fresh.err;
  expect_in(fresh.out, {"checkpoints in runs/run-3: every 2 steps, at the end"});
  const Outcome done = shell(here + "$SLUICE train run.yaml --resume runs/run");
  EXPECT_EQ(done.code, 0) << done.err;
  expect_in(done.out, {"all of its 10 steps are made"});
}

TEST(Overnight, ANamedPlaceMustHaveACheckpoint) {
  const Place place(4);
  const Outcome none = place.train("run", {"--resume", place.folder.path("nothing")});
  EXPECT_EQ(none.code, 2);
  expect_in(none.err, {"there is no checkpoint in "});
  ASSERT_EQ(place.train("run").code, 0);
  const Outcome taken = place.train("run");
  EXPECT_EQ(taken.code, 2);
  expect_in(taken.err, {"has checkpoints of a run already, up to step 4", "add --resume"});
  const Outcome conflict = place.train("run", {"--resume", "--seed", "5"});
  EXPECT_EQ(conflict.code, 2);
  expect_in(conflict.err, {"is of another run: seed is 1234 in the checkpoint and 5 here"});
  const Outcome earlier = place.train("run", {"--resume", place.folder.path("run/step-2")});
  EXPECT_EQ(earlier.code, 2);
  expect_in(earlier.err, {"step-4 is there too, which is never written over", "mv "});
}

TEST(Overnight, DamageIsNamedAndTheOneBeforeIsWhole) {
  struct Damage {
    const char* what;
    std::function<void(const std::string& checkpoint)> make;
    const char* said;
  };
  const std::string shard = "/rank-00000.safetensors", manifest = "/manifest.json";
  const std::vector<Damage> damages = {
      {"truncated", [&](const std::string& c) { fs::resize_file(c + shard, fs::file_size(c + shard) - 8); },
       "bytes, and the manifest says"},
      {"altered",
       [&](const std::string& c) { alter(c + shard, -9 + static_cast<std::streamoff>(fs::file_size(c + shard))); },
       "are not those that were written"},
      {"altered header", [&](const std::string& c) { alter(c + shard, 40); }, "are not those that were written"},
      {"missing", [&](const std::string& c) { fs::remove(c + shard); }, "is missing"},
      {"no manifest", [&](const std::string& c) { fs::remove(c + manifest); }, "it has no manifest.json"},
      {"altered manifest", [&](const std::string& c) { alter(c + manifest, 60); }, "altered or cut short"},
      {"cut manifest", [&](const std::string& c) { fs::resize_file(c + manifest, fs::file_size(c + manifest) / 2); },
       "altered or cut short"},
  };
  const Place place(8);
  ASSERT_EQ(place.train("whole").code, 0);
  const std::vector<std::string> horizon = {"--lr_scheduler.lr_decay_steps", "8"};
  const std::vector<std::string> six = {"--step_scheduler.max_steps", "6", horizon[0], horizon[1]};
  ASSERT_EQ(place.train("good", six).code, 0);
  const std::string newest = place.folder.path("run/step-6");
  const std::vector<std::string> go_on = {"--resume", horizon[0], horizon[1]};
  for (const Damage& damage : damages) {
    SCOPED_TRACE(damage.what);
    fs::remove_all(place.folder.path("run"));
    fs::copy(place.folder.path("good"), place.folder.path("run"),
             fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    damage.make(newest);
    const Outcome outcome = place.train("run", go_on);
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    expect_in(outcome.err, {"is damaged: ", damage.said, fmt::format("mv {} {}.damaged", newest, newest)});
  }
  // As advised.
  fs::rename(newest, newest + ".damaged");
  EXPECT_EQ(place.train("run", go_on).code, 0);
  EXPECT_EQ(place.state("run", 8), place.state("whole", 8));
}

TEST(Overnight, TwoRunsAreNotInOneDirectory) {
  const Place place(1'000'000);
  std::string command;
  for (const std::string& word : place.command("run", {"--resume"})) command += " '" + word + "'";
  const Outcome outcome = shell(fmt::format(
      "$SLUICE{} > /dev/null 2> {}.log & first=$!; until [ -e {}/LATEST ]; do sleep 0.05; done; $SLUICE{}; code=$?; "
      "kill $first; wait $first; exit $code",
      command, place.file, place.folder.path("run"), command));
  EXPECT_EQ(outcome.code, 2) << outcome.err;
  expect_in(outcome.err, {"another run is training in "});
}

TEST(Overnight, ASaveThatFailsIsSaidAndTheRunGoesOnOrEnds) {
  const Place place(8);
  ASSERT_EQ(place.train("whole").code, 0);
  const size_t bytes = place.state("whole", 8).size();
  std::string command;
  for (const std::string& word : place.command("run")) command += " '" + word + "'";
  // No file may be as large as a rank's.
  const std::string limited = fmt::format("trap '' XFSZ; ulimit -f {}; $SLUICE{}", bytes / 1024 / 2, command);
  const Outcome last = shell(limited);
  EXPECT_EQ(last.code, 1) << last.err;
  expect_in(last.err, {"warning: step 2 is not saved: cannot write ",
                       "the run goes on, no checkpoint of this run is complete yet", "error: step 8 is not saved: "});
  EXPECT_FALSE(fs::exists(place.folder.path("run/.step-2.sluice-unfinished")));
  fs::remove_all(place.folder.path("run"));
  const Outcome ended = shell(limited + " --checkpoint.on_failure stop");
  EXPECT_EQ(ended.code, 1);
  expect_in(ended.err, {"error: step 2 is not saved: "});
}

TEST(Overnight, ChangedDataIsAnotherRun) {
  const Place place(4);
  const std::string text = place.folder.file("text.txt", std::string(4000, 'a') + "bcd");
  const std::vector<std::string> bytes = {"--dataset._target_",          "bytes", "--dataset.path", text,
                                          "--step_scheduler.num_epochs", "null"};
  ASSERT_EQ(place.train("run", bytes).code, 0);
  std::vector<std::string> again = bytes;
  again.insert(again.end(), {"--resume", "--step_scheduler.max_steps", "6"});
  place.folder.file("text.txt", std::string(4000, 'a') + "bce");
  const Outcome changed = place.train("run", again);
  EXPECT_EQ(changed.code, 2);
  expect_in(changed.err, {"dataset is 4003 bytes of text with hash "});
  place.folder.file("text.txt", std::string(4000, 'a') + "bcd");
  EXPECT_EQ(place.train("run", again).code, 0);
}

TEST(Overnight, ATimeLimitSavesAndEnds) {
  const Place place(1'000'000);
  const Outcome outcome = place.train("run", {"--step_scheduler.max_minutes", "0.003"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  expect_in(outcome.out, {"step_scheduler.max_minutes are over: step ", " is saved"});
}

TEST(Overnight, KeepsAsManyAsItIsToldTo) {
  const Place place(20);
  ASSERT_EQ(place.train("run", {"--checkpoint.max_recent_checkpoints", "2", "--checkpoint.keep_every_steps", "8"}).code,
            0);
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(place.folder.path("run"))) {
    if (entry.is_directory() && !entry.is_symlink()) names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  EXPECT_EQ(names, (std::vector<std::string>{"step-16", "step-18", "step-20", "step-8"}));
  EXPECT_EQ(fs::read_symlink(place.folder.path("run/LATEST")), "step-20");
}

TEST(Overnight, AFileOfNemosGoesOnByItself) {
  const Place place(6);
  std::string text = read_file(place.file, 1 << 16);
  text += fmt::format(
      "recipe: TrainFinetuneRecipeForNextTokenPrediction\ncheckpoint: {{enabled: true, checkpoint_dir: {}}}\n",
      place.folder.path("nemo"));
  const std::string file = place.folder.file("nemo.yaml", text);
  ASSERT_EQ(sluice({"train", file}).code, 0);
  const Outcome again = sluice({"train", file, "--step_scheduler.max_steps", "8"});
  EXPECT_EQ(again.code, 0) << again.err;
  expect_in(again.out, {"goes on from step 6 of 8", "done: 8 steps, 2 of them now"});
  const Outcome other = sluice({"train", file, "--optimizer.eps", "0.1"});
  EXPECT_EQ(other.code, 2) << "never begun anew in silence";
  const Outcome restored = sluice({"train", file, "--checkpoint.restore_from", "step-9"});
  EXPECT_EQ(restored.code, 2);
  expect_in(restored.err, {"checkpoint.restore_from step-9: there is no such checkpoint"});
}

TEST(Overnight, ALastSaveThatFailsLeavesTheExport) {
  const Place place(4);
  ASSERT_EQ(place.train("whole").code, 0);
  std::string command;
  for (const std::string& word : place.command("run", {"--export", place.folder.path("out")}))
    command += " '" + word + "'";
  // Moments and values are too large together, values alone are not.
  const auto limit = place.state("whole", 4).size() / 1024 / 2;
  const Outcome outcome = shell(fmt::format("trap '' XFSZ; ulimit -f {}; $SLUICE{}", limit, command));
  EXPECT_EQ(outcome.code, 1);
  expect_in(outcome.err, {"error: step 4 is not saved: ", "the trained weights are in " + place.folder.path("out")});
  EXPECT_TRUE(fs::exists(place.folder.path("out/model.safetensors")));
}

TEST(Overnight, ARunThatWasKilledBeforeItsFirstCheckpointIsTakenOver) {
  const Place place(4);
  const std::string here = fmt::format("cd {} && $SLUICE train run.yaml --resume", place.folder.path(""));
  ASSERT_EQ(shell(here).code, 0);
  fs::remove_all(place.folder.path("runs/run/step-2"));
  fs::remove_all(place.folder.path("runs/run/step-4"));
  const Outcome other = shell(here + " --seed 3");
  EXPECT_EQ(other.code, 0) << other.err;
  expect_in(other.err, {"the run begins in runs/run-2"});
  const Outcome same = shell(here);
  EXPECT_EQ(same.code, 0) << same.err;
  expect_in(same.err, {"the run begins in runs/run\n"});
}

TEST(Overnight, ARestoredRunIsRequeuedByTheSameCommand) {
  const Place place(8);
  ASSERT_EQ(place.train("first", {"--step_scheduler.max_steps", "4", "--lr_scheduler.lr_decay_steps", "8"}).code, 0);
  const std::vector<std::string> command = {"--checkpoint.restore_from", place.folder.path("first/step-4"),
                                            "--lr_scheduler.lr_decay_steps", "8", "--step_scheduler.max_steps"};
  std::vector<std::string> six = command, eight = command;
  six.emplace_back("6");
  eight.emplace_back("8");
  const Outcome restored = place.train("second", six);
  ASSERT_EQ(restored.code, 0) << restored.err;
  expect_in(restored.out, {"goes on from step 4 of 6"});
  const Outcome again = place.train("second", eight);
  ASSERT_EQ(again.code, 0) << again.err;
  expect_in(again.out, {"goes on from step 6 of 8"});
}

TEST(Overnight, WhatIsReadGetsNoNewFiles) {
  const Place place(4);
  const std::string text = place.folder.path("text");
  fs::create_directories(text);
  write_file_atomic(text + "/page.txt", std::string(4000, 'a'));
  const Outcome outcome = sluice({"train", place.file, "--dataset._target_", "bytes", "--dataset.path", text,
                                  "--step_scheduler.num_epochs", "null", "--checkpoint.checkpoint_dir", text + "/run"});
  EXPECT_EQ(outcome.code, 2);
  expect_in(outcome.err, {"it is read by this run (dataset.path)"});
  EXPECT_FALSE(fs::exists(text + "/run"));
  const std::string log = place.folder.path("run/training.jsonl");
  const Outcome twice = place.train("run", {"--logging.jsonl", log});
  EXPECT_EQ(twice.code, 2);
  expect_in(twice.err, {"the run's own log and logging.jsonl are in each other's way"});
}

TEST(Overnight, TheHubsLayoutIsInTheLastCheckpointOrInAll) {
  const Place place(4);
  const auto consolidated = [&](const std::string& name, int step) {
    return fs::exists(place.folder.path(fmt::format("{}/step-{}/consolidated/model.safetensors", name, step)));
  };
  ASSERT_EQ(place.train("final", {"--checkpoint.save_consolidated", "final"}).code, 0);
  EXPECT_FALSE(consolidated("final", 2));
  EXPECT_TRUE(consolidated("final", 4));
  ASSERT_EQ(place.train("every", {"--checkpoint.save_consolidated", "every"}).code, 0);
  EXPECT_TRUE(consolidated("every", 2));
  // Ended in between: it is not the last one.
  ASSERT_EQ(place
                .train("stopped", {"--checkpoint.save_consolidated", "final", "--step_scheduler.max_steps", "1000000",
                                   "--step_scheduler.max_minutes", "0.002"})
                .code,
            0);
  const std::string latest = fs::read_symlink(place.folder.path("stopped/LATEST")).string();
  EXPECT_FALSE(fs::exists(place.folder.path("stopped/" + latest + "/consolidated")));
}

}  // namespace
}  // namespace sluice::test
