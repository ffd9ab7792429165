// The rule for what a command writes: nothing it reads, nothing that is there, nothing twice.
#include "cli/outputs.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "config/load.h"

namespace sluice::cli {
namespace {

namespace fs = std::filesystem;

// A run's files: run.yaml, data/ with a folder below, a model's directory with one file elsewhere.
class OutputRule : public testing::Test {
 public:
  OutputRule() {
    for (const char* folder : {"data/below", "model", "elsewhere", "results", "linked"}) {
      fs::create_directories(at_ / folder);
    }
    for (const char* file : {"run.yaml", "data/a.txt", "data/below/b.txt", "model/config.json", "model/tokenizer.json",
                             "elsewhere/blob", "linked/c.txt", "results/old.json", "validation.txt"}) {
      write_file_atomic(at_ / file, "contents");
    }
    // As a hub's cache keeps its files, and data that lie elsewhere.
    fs::create_symlink("../elsewhere/blob", at_ / "model" / "model.safetensors");
    fs::create_symlink("../linked", at_ / "data" / "link");
  }
  ~OutputRule() override { fs::remove_all(at_); }

 protected:
  Config config(const std::string& data = "data") const {
    return config::parse(fmt::format("model: {{config: {{pretrained_model_name_or_path: {0}/model}}}}\n"
                                     "dataset: {{_target_: bytes, path: '{0}/{1}'}}\n"
                                     "validation_dataset: {{_target_: bytes, path: {0}/validation.txt}}\n",
                                     at_.string(), data),
                         "run.yaml");
  }
  Outputs outputs(bool overwrite = false, const std::string& data = "data") const {
    return {Inputs(config(data), at_ / "run.yaml"), overwrite};
  }
  // What the rule says of a file, "" if it may be written.
  std::string verdict(const fs::path& file, bool overwrite = false, const std::string& data = "data") const {
    try {
      outputs(overwrite, data).file(at_ / file, "--json", "command line");
    } catch (const Error& error) {
      return describe(error);
    }
    return "";
  }
  std::string directory_verdict(const fs::path& directory, bool overwrite = false) const {
    try {
      outputs(overwrite).model_directory(at_ / directory, "--export");
    } catch (const Error& error) {
      return describe(error);
    }
    return "";
  }
  void expect_read(const fs::path& file, const std::string& as, const std::string& data = "data") const {
    for (const bool overwrite : {false, true}) {
      EXPECT_EQ(verdict(file, overwrite, data),
                fmt::format("cannot write {}: it is read by this run ({})\n       give --json another place: what is "
                            "read is never replaced",
                            (at_ / file).string(), as))
          << overwrite;
    }
  }

  const fs::path at_ = fs::temp_directory_path() / ("sluice-outputs-" + std::to_string(::getpid()) +
                                                    testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(OutputRule, WhatIsReadIsNeverWritten) {
  expect_read("run.yaml", "the configuration");
  expect_read("data/a.txt", "dataset.path");
  expect_read("data/below/b.txt", "dataset.path");
  expect_read("data/link/c.txt", "dataset.path");
  expect_read("linked/c.txt", "dataset.path");
  expect_read("validation.txt", "validation_dataset.path");
  expect_read("model/config.json", "the model's directory");
  expect_read("model/tokenizer.json", "the model's directory");
  expect_read("model/model.safetensors", "the model's directory");
  expect_read("elsewhere/blob", "the model's directory");
  expect_read("data/../run.yaml", "the configuration");
}

TEST_F(OutputRule, LinksToWhatIsReadCount) {
  fs::create_hard_link(at_ / "data" / "a.txt", at_ / "results" / "hard");
  fs::create_symlink("../run.yaml", at_ / "results" / "symbolic");
  fs::create_symlink("symbolic", at_ / "results" / "chain");
  fs::create_hard_link(at_ / "elsewhere" / "blob", at_ / "results" / "weights");
  expect_read("results/hard", "dataset.path");
  expect_read("results/chain", "the configuration");
  expect_read("results/weights", "the model's directory");
}

TEST_F(OutputRule, NothingNewComesWhereDataAreRead) {
  expect_read("data/new.json", "dataset.path");
  expect_read("data/below/new.json", "dataset.path");
  expect_read("linked/new.json", "dataset.path");
  fs::create_directory_symlink(at_ / "data", at_ / "results" / "same");
  expect_read("results/same/new.json", "dataset.path");
  fs::create_symlink(at_ / "data" / "not yet there", at_ / "results" / "dangling");
  expect_read("results/dangling", "dataset.path");
  // Above a linked directory is where it really is.
  fs::create_directory_symlink(at_ / "data" / "below", at_ / "results" / "deep");
  expect_read("results/deep/../new.json", "dataset.path");
  EXPECT_EQ(verdict("data/link/../new.json"), "");
  EXPECT_EQ(verdict("new.json"), "") << "beside a file that is read";
}

TEST_F(OutputRule, PatternsAreWhatTheyMatch) {
  for (const char* pattern : {"data/*.txt", "da*/a.txt", "data/[a-z].txt"})
    expect_read("data/a.txt", "dataset.path", pattern);
  expect_read("data/new.txt", "dataset.path", "data/*.txt");
  EXPECT_EQ(verdict("data/new.json", false, "data/*.txt"), "");
  // A directory that matches is read with all below it.
  expect_read("data/below/new.json", "dataset.path", "data/bel*");
}

TEST_F(OutputRule, BesideAModelButUnderNoNameOfItsFiles) {
  EXPECT_EQ(verdict("model/eval.json"), "");
  expect_read("model/model-00001-of-00002.safetensors", "the model's directory");
  expect_read("model/model.safetensors.index.json", "the model's directory");
}

TEST_F(OutputRule, WhatIsThereNeedsOverwrite) {
  EXPECT_EQ(verdict("results/old.json"),
            fmt::format("command line: cannot write {}: it is there already\n       give --json another file, or add "
                        "--overwrite",
                        (at_ / "results/old.json").string()));
  EXPECT_EQ(verdict("results/old.json", true), "");
  fs::create_symlink("old.json", at_ / "results" / "link");
  EXPECT_NE(verdict("results/link"), "");
  EXPECT_EQ(verdict("results/link", true), "");
  write_file_atomic(at_ / "results/empty", "");
  EXPECT_NE(verdict("results/empty"), "") << "an empty file is one";
}

TEST_F(OutputRule, PipesAndDevicesAreExempt) {
  ASSERT_EQ(::mkfifo((at_ / "results/pipe").c_str(), 0600), 0);
  ASSERT_EQ(::mkfifo((at_ / "data/pipe").c_str(), 0600), 0);
  EXPECT_EQ(verdict("results/pipe"), "");
  EXPECT_EQ(verdict("data/pipe"), "");
  for (const char* device : {"/dev/null", "/dev/full", "/dev/stdout", "/dev/stderr", "/dev/fd/1"}) {
    EXPECT_EQ(verdict(device), "") << device;
  }
  EXPECT_NE(verdict("results").find("it is a directory"), std::string::npos);
  EXPECT_NE(verdict("results/none/x").find("there is no directory"), std::string::npos);
  EXPECT_NE(verdict("results/old.json/x").find("Not a directory"), std::string::npos);
  EXPECT_NE(verdict("/proc/new.json").find("cannot create /proc/new.json"), std::string::npos);
}

TEST_F(OutputRule, NothingIsWrittenTwice) {
  Outputs two = outputs();
  two.file(at_ / "results/log", "logging.jsonl", "run.yaml:3");
  const auto refused = [&](const auto& call) {
    try {
      call();
    } catch (const Error& error) {
      return std::string(error.what()).find("in each other's way") != std::string::npos;
    }
    return false;
  };
  EXPECT_TRUE(refused([&] { two.file(at_ / "results/../results/log", "--json", ""); }));
  EXPECT_TRUE(refused([&] { two.model_directory(at_ / "results/log", "--export"); }));
  two.model_directory(at_ / "out", "--export");
  fs::create_directory(at_ / "out");
  EXPECT_TRUE(refused([&] { two.file(at_ / "out/log", "--json", ""); }));
  two.file(at_ / "output", "--json", "");
}

TEST_F(OutputRule, ADirectoryForAModel) {
  EXPECT_EQ(directory_verdict("new"), "");
  EXPECT_EQ(directory_verdict("new/deep/er/"), "");
  fs::create_directories(at_ / "empty");
  EXPECT_EQ(directory_verdict("empty"), "");
  fs::create_directory_symlink(at_ / "empty", at_ / "link");
  EXPECT_EQ(directory_verdict("link"), "");
  EXPECT_NE(directory_verdict("run.yaml").find("it is not a directory"), std::string::npos);
  EXPECT_NE(directory_verdict("").find("it is"), std::string::npos) << "what all files are in";
  for (const bool overwrite : {false, true}) {
    EXPECT_NE(directory_verdict("model", overwrite).find("(the model's directory)"), std::string::npos);
    EXPECT_NE(directory_verdict("data", overwrite).find("(dataset.path)"), std::string::npos);
    EXPECT_NE(directory_verdict("data/new", overwrite).find("(dataset.path)"), std::string::npos);
    EXPECT_NE(directory_verdict("results", overwrite).find("results is not empty: old.json is there"),
              std::string::npos);
  }
}

TEST_F(OutputRule, ADiskThatIsMountedThereCannotBeRenamed) {
  const std::string said = directory_verdict("/proc");
  EXPECT_NE(said.find("a disk is mounted there"), std::string::npos) << said;
  EXPECT_NE(said.find("name a new directory in it"), std::string::npos);
}

// Whatever writes a file goes through the rule: these are the places that do, and none of them is a command.
TEST(OutputPlaces, NothingElseOpensFilesForWriting) {
  const std::map<std::string, std::string> known = {
      {"base/file.cpp", "AtomicFile"},
      {"base/output.cpp", "OutputStream"},
      {"cli/outputs.cpp", "the rule"},
      {"checkpoint/safetensors.cpp", "into a directory that is staged"},
      {"checkpoint/hub_files.cpp", "into a directory that is staged"},
      {"checkpoint/rank_writer.cpp", "into a directory that is staged"},
      {"checkpoint/rank_parts.cpp", "into a directory that is staged"},
      {"checkpoint/export_trained.cpp", "into a directory that is staged"},
      {"checkpoint/checkpoint_folder.cpp", "the lock of a run's directory"},
      {"training/saver.cpp", "into a directory that is staged"},
      {"cli/train.cpp", "into a directory that is staged"},
      {"cli/run_directory.cpp", "what a run's directory says of it"},
      {"cli/run_log.cpp", "a run's own logs"},
      {"training/bad_steps.cpp", "beside a run's checkpoints"},
      {"training/save_forecast.cpp", "beside a run's checkpoints, removed at once"}};
  std::set<std::string> writers;
  const fs::path source = SLUICE_SOURCE_DIR "/src";
  for (const auto& entry : fs::recursive_directory_iterator(source)) {
    if (entry.path().extension() != ".cpp" && entry.path().extension() != ".cu") continue;
    const std::string text = read_file(entry.path(), 1 << 20);
    for (const char* word : {"ofstream", "fopen", "O_CREAT", "O_WRONLY", "O_RDWR", "write_file_atomic", "AtomicFile",
                             "copy_file", "create_directories"}) {
      if (text.find(word) != std::string::npos) writers.insert(fs::relative(entry.path(), source).string());
    }
  }
  for (const std::string& file : writers) EXPECT_TRUE(known.contains(file)) << file << " is not known to write";
  EXPECT_EQ(writers.size(), known.size());
}

TEST_F(OutputRule, OnlyAModelIsReplaced) {
  fs::create_directories(at_ / "old");
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"})
    write_file_atomic(at_ / "old" / name, "x");
  EXPECT_NE(directory_verdict("old").find("replace the model in it by adding --overwrite"), std::string::npos);
  EXPECT_EQ(directory_verdict("old", true), "");
  write_file_atomic(at_ / "old" / "thesis.tex", "x");
  EXPECT_NE(directory_verdict("old", true).find("thesis.tex is there\n       only a directory that holds a model's"),
            std::string::npos);
  fs::remove(at_ / "old" / "thesis.tex");
  fs::create_directory(at_ / "old" / "tokenizer");
  EXPECT_NE(directory_verdict("old", true), "") << "a directory in it is none of a model's files";
  fs::remove(at_ / "old" / "tokenizer");
  // A file of this run lies in it under a model's name.
  fs::create_hard_link(at_ / "elsewhere" / "blob", at_ / "old" / "model-2.safetensors");
  EXPECT_NE(directory_verdict("old", true).find("it is read by this run"), std::string::npos);
}

TEST_F(OutputRule, SpaceIsKnownBefore) {
  require_space(at_ / "new", 1, "--export");
  try {
    require_space(at_ / "new" / "deep", uint64_t{1} << 62, "--export");
    FAIL() << "4 EiB";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user);
    EXPECT_NE(std::string(error.what()).find("--export needs 4096 PiB and "), std::string::npos) << error.what();
  }
}

TEST_F(OutputRule, AnOlderResultIsReplacedWholeOrNotAtAll) {
  const fs::path path = at_ / "results/old.json";
  OutputFile file(outputs(true).file(path, "--json", ""), true);
  fs::create_directory(path.string() + fmt::format(".tmp-{}", ::getpid()));  // in the way of the new one
  EXPECT_THROW(file.write("new"), Error);
  EXPECT_EQ(read_file(path, 100), "contents");
  fs::remove(path.string() + fmt::format(".tmp-{}", ::getpid()));
  file.write("new");
  file.write("newer");
  EXPECT_EQ(read_file(path, 100), "newer");
}

TEST_F(OutputRule, WhatAnotherProgramMadeMeanwhileStays) {
  const fs::path path = at_ / "results/new.json";
  OutputFile file(outputs().file(path, "--json", ""), false);
  write_file_atomic(path, "theirs");
  EXPECT_THROW(file.write("mine"), Error);
  EXPECT_EQ(read_file(path, 100), "theirs");
}

TEST_F(OutputRule, ALogGoesOnWithoutItsFile) {
  OutputLog full(output_place("/dev/full"), false);
  full.write_line("one");
  full.write_line("two");
  {
    const OutputLog empty(output_place(at_ / "results/empty"), false);
  }
  EXPECT_FALSE(fs::exists(at_ / "results/empty")) << "what got no line would be in the way of the next run";
  {
    OutputLog log(output_place(at_ / "results/log"), false);
    log.write_line("one");
    EXPECT_EQ(read_file(at_ / "results/log", 100), "one\n") << "each line is there at once";
    log.write_line("two");
  }
  EXPECT_EQ(read_file(at_ / "results/log", 100), "one\ntwo\n");
}

}  // namespace
}  // namespace sluice::cli
