// The command line as people and scripts know it. A change here is a change for them: the texts in tests/e2e/help are
// meant to be edited by hand.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "e2e/program.h"

namespace sluice::test {
namespace {

const std::filesystem::path help_texts = std::filesystem::path(SLUICE_SOURCE_DIR) / "tests" / "e2e" / "help";

TEST(CommandLine, HelpIsFrozen) {
  int commands = 0;
  for (const char* name : {"bench", "train", "eval", "generate", "convert", "config", "plan", "launch", "doctor"}) {
    const Outcome outcome = sluice({name, "--help"});
    EXPECT_EQ(outcome.code, 0);
    EXPECT_EQ(outcome.err, "");
    EXPECT_EQ(outcome.out, read_file(help_texts / (std::string(name) + ".txt"), 1 << 16)) << name;
    ++commands;
  }
  EXPECT_EQ(commands, 9);
}

TEST(CommandLine, AloneItSaysWhatOneCanDo) {
  const Outcome outcome = sluice({});
  EXPECT_EQ(outcome.code, 0);
  for (const char* word :
       {"sluice bench", "sluice train", "sluice generate", "sluice config", "sluice plan", "sluice doctor", "--help"}) {
    EXPECT_NE(outcome.out.find(word), std::string::npos) << word;
  }
  EXPECT_EQ(sluice({"--help"}).out, outcome.out);
}

TEST(CommandLine, VersionNamesTheCommit) {
  const Outcome outcome = sluice({"--version"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out.substr(0, 7), "sluice ");
  EXPECT_NE(outcome.out.find('('), std::string::npos);
}

// What is typed, and the message it gets.
struct Mistake {
  std::vector<std::string> arguments;
  std::string message;
};

TEST(CommandLine, EachMistakeHasOneClearMessage) {
  const Folder folder;
  const std::string good = folder.file("good.yaml", small_config());
  const std::string unknown = folder.file("unknown.yaml", small_config() + "distributed: {ep_sise: 2}\n");
  const std::string wrong_type = folder.file("type.yaml", small_config() + "seed: many\n");
  const std::string empty = folder.file("empty.yaml", "");
  const std::string help = "       sluice bench --help lists the options\n";
  std::vector<Mistake> mistakes{
      {{"bensch"}, "error: command line: bensch is not a command of sluice\n       did you mean sluice bench?\n"},
      {{"bench", "--rank", "2"},
       "error: command line: sluice bench does not take --rank\n"
       "       did you mean --ranks? sluice bench --help lists the options\n"},
      {{"bench", "--ranks", "x"}, "error: command line: --ranks takes a whole number, not x\n" + help},
      {{"bench", "--ranks"}, "error: command line: --ranks needs a value\n" + help},
      {{"bench", "--ranks", "0"}, "error: command line: --ranks 0: at least one is needed\n"},
      {{"bench", "--steps", "0"}, "error: command line: --steps 0: at least one is needed\n"},
      {{"bench", "--scale", "huge"}, "error: command line: --scale: huge not in {laptop,tiny,full}\n" + help},
      {{"bench", "nowhere.yaml"}, "error: cannot open nowhere.yaml: No such file or directory\n"},
      {{"bench", "src"}, "error: cannot read src: it is a directory\n       name a YAML file\n"},
      {{"bench", empty},
       "error: " + empty +
           ": the file is empty\n       a configuration needs at least model.config; examples/ has runnable ones\n"},
      {{"bench", good, "--json", "/nowhere/a.json"},
       "error: cannot write /nowhere/a.json: there is no directory /nowhere\n"},
      {{"bench", good, "--json", folder.path("")}, "error: cannot write " + folder.path("") + ": it is a directory\n"},
      {{"bench", good, "--ranks", "3", "--distributed.ep_size", "2"},
       "error: ep_size 2 does not divide the 3 ranks of a pipeline stage (3 ranks, pp_size 1, dp_replicate_size 1, "
       "cp_size 1, tp_size 1, ep_size 2)\n       nearest that do: 1\n"},
      {{"bench", good, "--distributed.ep_sise", "2"},
       "error: command line: distributed.ep_sise is not a key\n"
       "       did you mean distributed.ep_size?   (keys of this section: sluice config --keys "
       "distributed)\n"},
      {{"train", unknown},
       "error: " + unknown +
           ":21: distributed.ep_sise is not a key\n"
           "       did you mean distributed.ep_size?   (keys of this section: sluice config --keys "
           "distributed)\n"},
      {{"train", wrong_type}, "error: " + wrong_type + ":21: seed: expected integer >= 0, got \"many\"\n"},
      {{"train"}, "error: command line: FILE is required\n       sluice train --help lists the options\n"},
      {{"train", good, "--benchmark.local_shard", "2"},
       "error: command line: benchmark.local_shard: what is left then does not train\n"
       "       sluice bench times it; leave the key out to train\n"},
      {{"train", good, "--step_scheduler.val_every_steps", "2"},
       "error: command line: step_scheduler.val_every_steps 2 but validation_dataset names no data\n"
       "       give validation_dataset a _target_ (mock, bytes), or leave val_every_steps out\n"},
      {{"train", good, "--runtime.device", "meta"},
       "error: command line: runtime.device meta computes nothing\n"
       "       sluice plan runs a configuration on it\n"},
      {{"train", good, "--model.config.vocab_size", "100", "--dataset", "{_target_: bytes, path: LICENSE}"},
       "error: command line: dataset has tokens up to 255, the model's vocabulary is 100\n"
       "       set model.config.vocab_size to at least 256\n"},
      {{"doctor", "--ranks", "2"},
       "error: command line: sluice doctor does not take --ranks\n       sluice doctor --help lists the options\n"},
      {{"launch", "--nproc", "2"},
       "error: command line: which command is to be started?\n"
       "       name it behind --, as in: sluice launch --nproc 2 -- train FILE\n"},
      {{"launch", "--nproc", "2", "train", good},
       "error: command line: sluice launch does not take train\n       the command to start stands behind --\n"},
      {{"launch", "--nporc", "2", "--", "train", good},
       "error: command line: sluice launch does not take --nporc\n"
       "       did you mean --nproc? sluice launch --help lists the options\n"},
      {{"launch", "--", "train", good},
       "error: command line: how many processes?\n       --nproc N says how many this host has\n"},
      {{"launch", "--nproc", "2", "--", "train", good, "--rank", "2"},
       "error: command line: sluice train does not take --rank\n"
       "       did you mean --ranks? sluice train --help lists the options\n"},
      {{"launch", "--nproc", "2", "--", "launch"},
       "error: command line: sluice launch does not start itself\n"
       "       name the command that the processes run, as in: sluice launch --nproc 2 -- train FILE\n"},
      {{"launch", "--nproc", "2", "--restarts", "1", "--", "train", good},
       "error: command line: --restarts 1, and the run would begin anew each time\n"
       "       name sluice train --resume, which goes on from the newest checkpoint\n"},
      {{"config"}, "error: command line: sluice config needs a file\n       or --keys, to list what a file may say\n"},
  };
  mistakes.push_back({{"train", good, "--resume"},
                      "error: " + good +
                          ":19: --resume, and checkpoint.enabled is false\n"
                          "       set checkpoint.enabled: true\n"});
  for (const Mistake& mistake : mistakes) {
    const Outcome outcome = sluice(mistake.arguments);
    EXPECT_EQ(outcome.err, mistake.message);
    EXPECT_EQ(outcome.code, 2) << mistake.message;
    EXPECT_EQ(outcome.out, "") << mistake.message;
  }
}

TEST(CommandLine, AFullDiskIsNotSuccess) {
  const Outcome outcome = on_terminal({"--version"});
  EXPECT_EQ(outcome.code, 0);
  const std::string line = std::string("'") + SLUICE_BINARY + "' --help >/dev/full 2>/dev/null";
  const int status = std::system(line.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 1);
}

TEST(CommandLine, ColourOnlyOnATerminal) {
  const std::string colour = "\033[1;31merror:\033[0m";
  EXPECT_NE(on_terminal({"bensch"}).out.find(colour), std::string::npos);
  EXPECT_EQ(on_terminal({"bensch"}, "", /*no_color=*/true).out.find('\033'), std::string::npos);
  EXPECT_EQ(sluice({"bensch"}).err.find('\033'), std::string::npos);
}

}  // namespace
}  // namespace sluice::test
