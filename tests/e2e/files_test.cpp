// The files that commands read and write, through the program: each command keeps the one rule (cli/outputs.h).
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "e2e/program.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

void expect_refused(const std::vector<std::string>& command, const std::vector<std::string>& parts) {
  const Outcome outcome = sluice(command);
  EXPECT_EQ(outcome.code, 2) << outcome.err;
  expect_in(outcome.err, parts);
}

// A run on text and on weights, each in a directory of its own.
struct TinyRun {
  Folder folder;
  std::string weights = hub_directory(folder, "llama");
  std::string text = folder.path("text");
  std::string yaml = folder.file("run.yaml", fmt::format("step_scheduler: {{global_batch_size: 2, max_steps: 2}}\n"
                                                         "model: {{config: {{pretrained_model_name_or_path: {}}}}}\n"
                                                         "dataset: {{_target_: mock, seq_len: 16}}\n"
                                                         "checkpoint: {{enabled: false}}\n",
                                                         weights));
  TinyRun() { fs::create_directory(text); }
};

TEST(Files, ALogDestroysNothing) {
  const TinyRun run;
  const std::string page = run.folder.file("text/page", std::string(4096, 'a'));
  const std::string bytes = run.folder.file("bytes.yaml", small_config());
  const std::string data = "{_target_: bytes, path: " + run.text + ", seq_len: 16}";
  const std::string config = run.weights + "/config.json", tensors = run.weights + "/model.safetensors";
  const auto logging = [](const std::string& file) { return "{jsonl: " + file + "}"; };
  for (const std::string& file : {run.yaml, config, tensors}) {
    const std::string before = read_file(file, 1 << 24);
    expect_refused({"train", run.yaml, "--logging", logging(file)}, {"it is read by this run"});
    expect_refused({"train", run.yaml, "--logging", logging(file), "--overwrite"}, {"it is read by this run"});
    EXPECT_EQ(read_file(file, 1 << 24), before);
  }
  for (const std::string& file : {page, run.text + "/new.jsonl"}) {
    expect_refused({"train", bytes, "--dataset", data, "--logging", logging(file), "--overwrite"},
                   {"it is read by this run (dataset.path)"});
    expect_refused({"train", bytes, "--validation_dataset", data, "--logging", logging(file), "--overwrite"},
                   {"it is read by this run (validation_dataset.path)"});
  }
  EXPECT_EQ(read_file(page, 1 << 20), std::string(4096, 'a'));
  EXPECT_EQ(fs::exists(run.text + "/new.jsonl"), false);

  const std::string log = run.folder.path("log.jsonl");
  ASSERT_EQ(sluice({"train", run.yaml, "--logging", logging(log)}).code, 0);
  const std::string first = read_file(log, 1 << 20);
  EXPECT_EQ(lines_of(first).size(), 2U);
  expect_refused({"train", run.yaml, "--logging", logging(log)},
                 {"command line: cannot write " + log + ": it is there already",
                  "give logging.jsonl another file, or add --overwrite"});
  EXPECT_EQ(read_file(log, 1 << 20), first);
  EXPECT_EQ(sluice({"train", run.yaml, "--logging", logging(log), "--overwrite"}).code, 0);
  EXPECT_EQ(lines_of(read_file(log, 1 << 20)).size(), 2U) << "made anew";
}

TEST(Files, ALogThatFailsEndsNoRun) {
  const TinyRun run;
  const Outcome full = sluice({"train", run.yaml, "--logging", "{jsonl: /dev/full}"});
  EXPECT_EQ(full.code, 0);
  expect_in(full.err, {"warning: cannot write /dev/full: No space left on device; the run goes on without its log"});
  EXPECT_EQ(full.err.find("goes on"), full.err.rfind("goes on"));
  expect_in(sluice({"train", run.yaml, "--logging", "{jsonl: /dev/stdout}"}).out,
            {R"({"step":1,"epoch":0,"timestamp":")"});
  EXPECT_EQ(sluice({"train", run.yaml, "--logging", "{jsonl: /dev/null}"}).code, 0);
  // A run that is refused leaves an older log as it was.
  const std::string log = run.folder.file("log.jsonl", "older");
  EXPECT_EQ(
      sluice({"train", run.yaml, "--logging", "{jsonl: " + log + "}", "--overwrite", "--dataset.seq_len", "134217728"})
          .code,
      2);
  EXPECT_EQ(read_file(log, 100), "older");
}

TEST(Files, EachResultKeepsTheRule) {
  const TinyRun run;
  const std::string there = run.folder.file("there", "mine");
  const std::vector<std::vector<std::string>> commands = {
      {"bench", run.yaml, "--steps", "1", "--benchmark.warmup_steps", "0", "--json"},
      {"eval", run.yaml, "--batches", "1", "--json"},
      {"plan", run.yaml, "--profile", "h100", "--json"},
      {"generate", run.yaml, "--tokens", "1", "--max-tokens", "2", "--logits"}};
  for (const std::vector<std::string>& command : commands) {
    SCOPED_TRACE(command.front());
    const auto with = [&](const std::vector<std::string>& more) {
      std::vector<std::string> words = command;
      words.insert(words.end(), more.begin(), more.end());
      return words;
    };
    expect_refused(with({there}), {"it is there already", "add --overwrite"});
    EXPECT_EQ(read_file(there, 100), "mine");
    expect_refused(with({run.yaml, "--overwrite"}), {"it is read by this run (the configuration)"});
    // The result comes whole, also through a pipe, to a place whose name has spaces.
    const std::string result = run.folder.path("of " + command.front());
    const std::string words = fmt::format("\"$SLUICE\" {}", fmt::join(command, " "));
    const Outcome piped = shell(fmt::format("{} >(cat >'{}') && wait $!", words, result));
    EXPECT_EQ(piped.code, 0) << piped.err;
    EXPECT_GT(fs::file_size(result), 0U);
  }
  const std::vector<std::string> eval{"eval", run.yaml, "--batches", "1", "--json"};
  const auto evaluated = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = eval;
    words.insert(words.end(), more.begin(), more.end());
    return sluice(words).code;
  };
  EXPECT_EQ(evaluated({"/dev/null"}), 0);
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_EQ(evaluated({"/dev/full"}), 1);
  EXPECT_EQ(evaluated({there, "--overwrite"}), 0);
  EXPECT_EQ(nlohmann::json::parse(read_file(there, 1 << 16)).at("samples"), 2);
  // benchmark.json_output_path is such a file too.
  expect_refused({"bench", run.yaml, "--benchmark.json_output_path", there}, {"it is there already"});
  expect_refused({"bench", run.yaml, "--benchmark.json_output_path", run.yaml, "--overwrite"},
                 {"it is read by this run"});
  const std::string row = "examples/benchmark/configs/gpt_oss_20b_8.yaml";
  expect_refused({"bench", "R4", "--scale", "tiny", "--json", row, "--overwrite"}, {"(a published row)"});
  const std::string prompt = run.folder.file("prompt", "1 2");
  expect_refused({"generate", run.yaml, "--prompt-file", prompt, "--logits", prompt, "--overwrite"},
                 {"(--prompt-file)"});
}

TEST(Files, AResultOnStandardOutputFollowsTheText) {
  const TinyRun run;
  const std::string all = run.folder.path("all");
  ASSERT_EQ(shell(fmt::format("\"$SLUICE\" eval {} --batches 1 --json /dev/stdout >{}", run.yaml, all)).code, 0);
  const std::string text = read_file(all, 1 << 16);
  ASSERT_NE(text.find('{'), std::string::npos);
  EXPECT_LT(text.find("loss "), text.find('{'));
  EXPECT_EQ(nlohmann::json::parse(text.substr(text.find('{'))).at("samples"), 2);
}

TEST(Files, EvalCountsEachSampleOnce) {
  const TinyRun run;
  const std::string out = run.folder.path("e.json");
  std::vector<std::string> command{"eval", run.yaml, "--dataset.num_samples", "7", "--json", out, "--overwrite"};
  ASSERT_EQ(sluice(command).code, 0);
  const nlohmann::json one = nlohmann::json::parse(read_file(out, 1 << 16));
  EXPECT_EQ(one.at("samples"), 7);
  EXPECT_EQ(one.at("tokens"), 7 * 16);
  EXPECT_EQ(one.at("weights"), run.weights);
  EXPECT_EQ(one.at("unit"), "nats/token");
  EXPECT_NEAR(one.at("perplexity").get<double>(), std::exp(one.at("loss").get<double>()), 1e-9);
  command.insert(command.end(), {"--step_scheduler.global_batch_size", "12", "--step_scheduler.local_batch_size", "3",
                                 "--ranks", "2"});
  const Outcome outcome = sluice(command);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_in(outcome.out, {"dataset of 7 x 16 tokens in batches of 12", "over 112 tokens"});
  const nlohmann::json two = nlohmann::json::parse(read_file(out, 1 << 16));
  EXPECT_EQ(two.at("tokens"), 7 * 16);
  EXPECT_NEAR(two.at("loss").get<double>(), one.at("loss").get<double>(), 1e-6);
}

TEST(Files, WeightsThatAreNotKeptAreSaidToBeLost) {
  const TinyRun run;
  const Outcome without = sluice({"train", run.yaml});
  EXPECT_EQ(without.code, 0);
  expect_in(without.out, {"the trained weights will not be kept (checkpoint.enabled is false);\n",
                          "the trained weights were not kept\n"});
  const Outcome with = sluice({"train", run.yaml, "--export", run.folder.path("out")});
  EXPECT_EQ(with.code, 0);
  EXPECT_EQ(with.out.find("not kept"), std::string::npos);
  EXPECT_EQ(with.out.find("not be kept"), std::string::npos);
}

TEST(Files, AnExportReplacesOnlyAModel) {
  const TinyRun run;
  const std::string out = run.folder.path("out");
  ASSERT_EQ(sluice({"train", run.yaml, "--export", out}).code, 0);
  const std::string first = read_file(fs::path(out) / "model.safetensors", 1 << 24);
  expect_refused({"train", run.yaml, "--export", out}, {"out is not empty: ", "--overwrite"});
  ASSERT_EQ(sluice({"train", run.yaml, "--export", out, "--overwrite", "--seed", "3"}).code, 0);
  EXPECT_NE(read_file(fs::path(out) / "model.safetensors", 1 << 24), first);
  expect_refused({"train", run.yaml, "--export", run.weights, "--overwrite"}, {"it is read by this run"});
  expect_refused({"train", run.yaml, "--export", run.folder.path(""), "--overwrite"}, {"it is read by this run"});
  expect_refused({"train", run.yaml, "--export", out, "--overwrite", "--logging", "{jsonl: " + out + "/log}"},
                 {"logging.jsonl and --export are in each other's way"});
}

TEST(Files, APipeIsReadToItsEnd) {
  const TinyRun run;
  const auto with_pipe = [&](const std::string& command) {
    const Outcome outcome = shell(fmt::format(fmt::runtime("\"$SLUICE\" " + command), run.yaml));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome;
  };
  with_pipe("train <(cat {0})");
  with_pipe("train /dev/stdin <{0}");
  with_pipe("eval /dev/stdin --batches 1 < <(cat {0})");
  with_pipe("config <(cat {0})");
  with_pipe("bench <(sleep 0.1; cat {0}) --layout both --steps 1 --benchmark.warmup_steps 0");
  with_pipe("generate {0} --max-tokens 2 --prompt-file <(echo 1,2)");
}

TEST(Files, APipeThatNobodyWritesToHangsNothing) {
  const TinyRun run;
  const std::string pipe = run.folder.path("pipe");
  ASSERT_EQ(std::system(fmt::format("mkfifo '{}'", pipe).c_str()), 0);
  const std::string message = "nothing came from the pipe " + pipe + ": no program writes to it";
  for (const char* command : {"train", "plan"}) expect_refused({command, pipe}, {message});
  expect_refused({"generate", run.yaml, "--prompt-file", pipe}, {message});
  expect_refused({"bench", "--from", pipe}, {message});
  expect_refused({"train", "/dev/zero"}, {"cannot read /dev/zero: it is a device, not a file"});
  for (const char* name : {"config.json", "model.safetensors.index.json"}) {
    const fs::path file = fs::path(run.weights) / name;
    fs::remove(file);
    if (name != std::string("config.json")) fs::remove(fs::path(run.weights) / "model.safetensors");
    fs::create_symlink(pipe, file);
    expect_refused({"eval", run.yaml}, {std::string("cannot read ") + file.string() + ": it is a pipe, not a file"});
    fs::remove(file);
    fs::copy_file(SLUICE_SOURCE_DIR "/tests/parity/goldens/llama/config.json", fs::path(run.weights) / "config.json",
                  fs::copy_options::overwrite_existing);
  }
}

}  // namespace
}  // namespace sluice::test
