// `sluice generate`, and what `sluice train --export` writes for it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "e2e/program.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

std::vector<int> numbers_in(const std::string& text) {
  std::vector<int> numbers;
  std::istringstream stream(text);
  for (int number = 0; stream >> number;) numbers.push_back(number);
  return numbers;
}

TEST(Generate, ADirectoryContinuesTokens) {
  const Folder folder;
  for (const char* family : {"deepseek_v3", "kimi_k2", "qwen3_moe", "gpt_oss", "llama", "qwen3"}) {
    SCOPED_TRACE(family);
    const std::string source = hub_directory(folder, family);
    const Outcome outcome = sluice({"generate", source, "--tokens", "1,2 3", "--max-tokens", "20"});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    expect_in(outcome.err, {"3 prompt tokens, up to 20 more", "loaded ", "prompt 3 tokens in ", "then 20 tokens in ",
                            " tok/s in fp32)"});
    const std::vector<int> tokens = numbers_in(outcome.out);
    EXPECT_EQ(tokens.size(), 20U);
    for (const int token : tokens) EXPECT_TRUE(token >= 0 && token < 72);
    EXPECT_EQ(lines_of(outcome.out).size(), 1U);
    // What came out goes in again, and the text goes on as it did.
    const Outcome longer = sluice({"generate", source, "--tokens", "1,2,3", "--max-tokens", "25"});
    const std::string file = folder.file("prompt.txt", "1 2 3 " + outcome.out);
    const Outcome rest = sluice({"generate", source, "--prompt-file", file, "--max-tokens", "5", "--threads", "1"});
    EXPECT_EQ(numbers_in(outcome.out + rest.out), numbers_in(longer.out));
  }
}

TEST(Generate, SamplesStopsAndSeeds) {
  const Folder folder;
  const std::string source = hub_directory(folder, "qwen3");
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"generate", source, "--tokens", "7", "--max-tokens", "12"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = sluice(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.out;
  };
  const std::string greedy = run({});
  EXPECT_EQ(run({"--temperature", "0.9", "--top-k", "1"}), greedy);
  const std::string drawn = run({"--temperature", "1.5", "--samples", "3"});
  const std::vector<std::string> lines = lines_of(drawn);
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_NE(lines[0], lines[1]);
  EXPECT_EQ(run({"--temperature", "1.5", "--samples", "3", "--threads", "1"}), drawn);
  EXPECT_EQ(run({"--temperature", "1.5"}), lines[0] + "\n");
  EXPECT_NE(run({"--temperature", "1.5", "--seed", "5"}), lines[0] + "\n");
  EXPECT_NE(run({"--temperature", "1.5", "--top-p", "0.3"}), lines[0] + "\n");
  const std::vector<int> tokens = numbers_in(greedy);
  const std::string stop = std::to_string(tokens[3]);
  const std::vector<int> cut(tokens.begin(), std::ranges::find(tokens, tokens[3]));
  EXPECT_EQ(numbers_in(run({"--stop", "71,70,71", "--stop", stop})), cut);
}

TEST(Generate, LogitsAreWrittenForEveryTokenThatRan) {
  const Folder folder;
  const std::string source = hub_directory(folder, "gpt_oss"), path = folder.path("logits.safetensors");
  const Outcome outcome =
      sluice({"generate", source, "--tokens", "3,1,4,1,5,9,2,6", "--max-tokens", "4", "--logits", path});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<int> tokens = numbers_in(outcome.out);
  const safetensors::Model model(path);
  const safetensors::StoredTensor &logits = model.at("logits"), &ran = model.at("tokens");
  EXPECT_EQ(logits.spec.shape, (safetensors::Extents{11, 72}));
  EXPECT_EQ(logits.spec.type, safetensors::Type::f32);
  std::vector<int32_t> ids(11);
  ASSERT_EQ(ran.bytes.size(), sizeof(int32_t) * ids.size());
  std::memcpy(ids.data(), ran.bytes.data(), ran.bytes.size());
  EXPECT_EQ(std::vector<int>(ids.begin() + 8, ids.end()), std::vector<int>(tokens.begin(), tokens.end() - 1));
  std::vector<float> values(11 * 72);
  std::memcpy(values.data(), logits.bytes.data(), logits.bytes.size());
  for (int64_t i = 0; i < 4; ++i) {
    const auto row = values.begin() + (7 + i) * 72;
    EXPECT_EQ(std::max_element(row, row + 72) - row, tokens[static_cast<size_t>(i)]);
  }
}

// A text of one letter pair teaches a model of bytes in a moment.
TEST(Generate, ATrainedModelWritesWhatItLearnt) {
  const Folder folder;
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "ab";
  const std::string data = folder.file("data.txt", text), exported = folder.path("exported");
  std::string yaml = small_config();
  const std::string mock = "dataset: {_target_: mock, seq_len: 16}\n";
  yaml.replace(yaml.find(mock), mock.size(), "dataset: {_target_: bytes, path: " + data + ", seq_len: 16}\n");
  const std::string config = folder.file("bytes.yaml", yaml);
  const Outcome trained = sluice({"train", config, "--export", exported, "--step_scheduler.max_steps", "60",
                                  "--optimizer.lr", "0.01", "--lr_scheduler.lr_warmup_steps", "0"});
  ASSERT_EQ(trained.code, 0) << trained.err;
  expect_in(trained.err, {"wrote " + exported});
  const Outcome outcome = sluice({"generate", exported, "--prompt", "abab", "--max-tokens", "10"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "ababababab\n");
  const Outcome stopped = sluice({"generate", exported, "--prompt", "aba", "--stop", "ba", "--samples", "2"});
  EXPECT_EQ(stopped.out, "--- sample 1 of 2 ---\n\n--- sample 2 of 2 ---\n\n");
  // Again into the same place, and where weights cannot be written whole.
  const Outcome again = sluice({"train", config, "--export", exported});
  EXPECT_EQ(again.code, 2);
  expect_in(again.err, {"exported is not empty"});
  const Outcome ranks = sluice({"train", config, "--ranks", "2", "--export", folder.path("two")});
  EXPECT_EQ(ranks.code, 0) << ranks.err;
  expect_in(ranks.err, {"wrote " + folder.path("two")});
  const Outcome gate = sluice({"train", config, "--benchmark.balance", "published", "--export", folder.path("gate")});
  EXPECT_EQ(gate.code, 2);
  expect_in(gate.err, {"a forced gate has no router to write", "--benchmark.balance router"});
}

TEST(Generate, AConfigurationWithoutWeightsSaysSo) {
  const Folder folder;
  const Outcome outcome = sluice({"generate", folder.file("a.yaml", small_config()), "--prompt", "x"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_in(outcome.err, {" parameters drawn at random, 1 prompt tokens, up to 31 more"});
}

TEST(Generate, MistakesAreSaid) {
  const Folder folder;
  const std::string source = hub_directory(folder, "qwen3_moe"), text = folder.file("text.yaml", small_config());
  const auto refused = [](std::vector<std::string> arguments, const std::vector<std::string>& parts) {
    arguments.insert(arguments.begin(), "generate");
    const Outcome outcome = sluice(arguments);
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    expect_in(outcome.err, parts);
  };
  refused({source}, {"there is no prompt", "--tokens IDS"});
  refused({source, "--tokens", "1", "--prompt", "x"}, {"more than one prompt"});
  refused({source, "--tokens", ""}, {"the prompt is empty"});
  refused({source, "--tokens", " , "}, {"the prompt is empty"});
  refused({source, "--tokens", "-1"}, {"--tokens: -1 is not a token", "0 to 71"});
  refused({source, "--tokens", "1,72"}, {"--tokens: 72 is not a token"});
  refused({source, "--tokens", "99999999999999999999"}, {"is not a token"});
  refused({source, "--tokens", "1.5"}, {"1.5 is not a token"});
  refused({source, "--tokens", "one"}, {"one is not a token"});
  refused({source, "--prompt", "x"}, {"--prompt is text, and the model's tokens are not bytes", "--tokens 1,2,3"});
  refused({source, "--tokens", "1", "--stop", "72"}, {"--stop: 72 is not a token"});
  refused({source, "--tokens", "1", "--stop", ""}, {"--stop is empty"});
  refused({source, "--tokens", "1", "--max-tokens", "-1"}, {"--max-tokens -1"});
  refused({source, "--tokens", "1", "--max-tokens", "256"},
          {"a prompt of 1 tokens and 256 more: the model has 256 positions", "--max-tokens 255 is the most"});
  refused({text, "--prompt", std::string(33, 'x')},
          {"a prompt of 33 tokens and 0 more: the model has 32 positions", "shorten the prompt"});
  refused({source, "--tokens", "1", "--temperature", "-0.1"}, {"--temperature -0.1"});
  refused({source, "--tokens", "1", "--temperature", "nan"}, {"--temperature nan"});
  refused({source, "--tokens", "1", "--temperature", "hot"}, {"--temperature takes a number, not hot"});
  refused({source, "--tokens", "1", "--top-k", "-1"}, {"--top-k -1"});
  refused({source, "--tokens", "1", "--top-p", "0"}, {"--top-p 0"});
  refused({source, "--tokens", "1", "--top-p", "1.01"}, {"--top-p 1.01"});
  refused({source, "--tokens", "1", "--samples", "0"}, {"--samples 0"});
  refused({source, "--tokens", "1", "--samples", "2", "--logits", folder.path("l")}, {"--logits is of one sample"});
  refused({source, "--tokens", "1", "--logits", "/nowhere/l"}, {"there is no directory /nowhere"});
  refused({source, "--prompt-file", folder.path("missing")}, {"missing: No such file"});
  refused({folder.path("nowhere"), "--tokens", "1"}, {"nowhere: No such file"});
  refused({folder.path(""), "--tokens", "1"}, {"config.json", "No such file"});
  refused({text, "--prompt", "x", "--distributed.ep_size", "2"}, {"is for 2 ranks, and text is generated on one"});
  refused({text, "--prompt", "x", "--benchmark.balance", "published"},
          {"a forced gate, which chooses experts whatever the text", "--benchmark.balance router"});
  refused({text, "--prompt", "x", "--model.backend.fake_balanced_gate", "true"}, {"a forced gate"});
  refused({text, "--prompt", "x", "--benchmark.local_shard", "2"}, {"benchmark.local_shard 2"});
  refused({text, "--prompt", "x", "--runtime.device", "meta"}, {"runtime.device meta computes nothing"});
  refused({source, "--tokens", "1", "--model.config.num_hidden_layers", "1"}, {"does not hold the"});
}

}  // namespace
}  // namespace sluice::test
