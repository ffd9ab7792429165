// Hub directories through the program: convert, eval, train.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/file.h"
#include "checkpoint/hub_match.h"
#include "e2e/program.h"
#include "model/cards.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

std::string config_for(const Folder& folder, const std::string& directory, const std::string& more = "") {
  return folder.file("run.yaml",
                     "step_scheduler: {global_batch_size: 4, local_batch_size: 2, max_steps: 2}\n"
                     "model: {config: {pretrained_model_name_or_path: " +
                         directory +
                         "}}\n"
                         "dataset: {_target_: mock, seq_len: 16}\n" +
                         more);
}

double loss_in(const std::string& text) {
  const size_t at = text.find("loss ");
  return at == std::string::npos ? -1 : std::stod(text.substr(at + 5));
}

TEST(Convert, AnotherTypeInFilesOfAnotherSize) {
  const Folder folder;
  const std::string source = hub_directory(folder, "qwen3_moe"), half = folder.path("half"), back = folder.path("back");
  const Outcome outcome = sluice({"convert", source, half, "--dtype", "bf16", "--max-shard-size", "20KB"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_in(outcome.out,
            {"qwen3_moe (qwen3_moe): 102 tensors, ", "half: 102 tensors, ", " files, 2 files beside them"});
  EXPECT_EQ(outcome.err, "");
  EXPECT_TRUE(fs::exists(fs::path(half) / "model.safetensors.index.json"));
  EXPECT_TRUE(fs::exists(fs::path(half) / "tokenizer.json"));
  expect_in(read_file(fs::path(half) / "config.json", 1 << 16), {"\"dtype\": \"bfloat16\""});
  const HubWeights hub(half);
  EXPECT_EQ(match_weights(hub, load_model(half)).items.front().weight.values.spec.type, safetensors::Type::bf16);

  ASSERT_EQ(sluice({"convert", half, back, "--dtype", "fp32"}).code, 0);
  EXPECT_TRUE(fs::exists(fs::path(back) / "model.safetensors"));
  EXPECT_FALSE(fs::exists(fs::path(back) / "model.safetensors.index.json"));
}

TEST(Convert, MistakesAreSaid) {
  const Folder folder;
  const std::string source = hub_directory(folder, "llama"), target = folder.path("target");
  const auto refused = [](const std::vector<std::string>& arguments, const std::vector<std::string>& parts) {
    const Outcome outcome = sluice(arguments);
    EXPECT_EQ(outcome.code, 2);
    expect_in(outcome.err, parts);
  };
  refused({"convert", source, source}, {"it is read by this run (SOURCE)"});
  refused({"convert", source, target, "--max-shard-size", "many"}, {"--max-shard-size many is not a size", "5GB"});
  refused({"convert", source, target, "--max-shard-size", "-1"}, {"is not a size"});
  refused({"convert", source, target, "--dtype", "fp8"}, {"--dtype", "fp8"});
  refused({"convert", folder.path("nowhere"), target}, {"config.json", "No such file"});
  refused({"convert", source}, {"TARGET"});
  EXPECT_FALSE(fs::exists(target));
  ASSERT_EQ(sluice({"convert", source, target}).code, 0);
  refused({"convert", source, target}, {"target is not empty", "name a new directory", "--overwrite"});
  fs::copy_file(fs::path(source) / "config.json", folder.path("target/config.json"),
                fs::copy_options::overwrite_existing);
  fs::copy_file(SLUICE_SOURCE_DIR "/tests/parity/goldens/qwen3/weights.safetensors",
                folder.path("target/model.safetensors"), fs::copy_options::overwrite_existing);
  refused({"convert", target, folder.path("other")}, {"does not hold the 30 tensors of target (llama)", "q_norm"});
}

TEST(Convert, NothingThatIsThereIsReplaced) {
  const Folder folder;
  const std::string source = hub_directory(folder, "llama"), notes = folder.file("notes", "mine");
  fs::create_directory(folder.path("target"));
  fs::create_symlink(notes, folder.path("target/tokenizer.json"));
  const Outcome outcome = sluice({"convert", source, folder.path("target")});
  EXPECT_EQ(outcome.code, 2);
  expect_in(outcome.err, {"target is not empty: tokenizer.json is there", "name a new directory"});
  EXPECT_EQ(read_file(notes, 100), "mine");
  const std::string file = folder.path("llama/model.safetensors");
  const Outcome logits = sluice({"generate", source, "--tokens", "1", "--logits", file});
  EXPECT_EQ(logits.code, 2);
  expect_in(logits.err, {"cannot write " + file, "it is read by this run (the model's directory)"});
}

// A model whose weights cannot be found is not a model without any.
TEST(Eval, WeightsThatLeadNowhereAreRefused) {
  const Folder folder;
  const std::string source = hub_directory(folder, "llama"), config = config_for(folder, source);
  const fs::path file = fs::path(source) / "model.safetensors";
  fs::rename(file, fs::path(source) / "model-00001-of-00002.safetensors");
  EXPECT_EQ(sluice({"eval", config, "--batches", "1"}).code, 2);
  fs::create_symlink(folder.path("gone"), file);
  EXPECT_EQ(sluice({"eval", config, "--batches", "1"}).code, 2);
  fs::remove(file);
  ASSERT_EQ(std::system(fmt::format("mkfifo '{}'", file.string()).c_str()), 0);
  const Outcome fifo = sluice({"eval", config, "--batches", "1"});
  EXPECT_EQ(fifo.code, 2);
  expect_in(fifo.err, {"not a regular file"});
}

TEST(Eval, WeightsOfADirectoryAreUsed) {
  const Folder folder;
  const std::string source = hub_directory(folder, "qwen3_moe"), config = config_for(folder, source);
  const Outcome loaded = sluice({"eval", config, "--batches", "3"});
  ASSERT_EQ(loaded.code, 0) << loaded.err;
  expect_in(loaded.err, {"loaded 102 tensors, ", source});
  expect_in(loaded.out,
            {" parameters, dataset of 12 x 16 tokens in batches of 4", " nats/token, perplexity ", "over 192 tokens"});
  const Outcome random = sluice({"eval", config, "--batches", "3", "--model.load_weights", "false"});
  ASSERT_EQ(random.code, 0) << random.err;
  expect_in(random.out, {"parameters drawn at random"});
  EXPECT_EQ(random.err, "");
  EXPECT_NE(loss_in(loaded.out), loss_in(random.out));
  // The same on any layout.
  const Outcome ranks = sluice({"eval", config, "--batches", "3", "--ranks", "2", "--distributed.ep_size", "2"});
  ASSERT_EQ(ranks.code, 0) << ranks.err;
  EXPECT_NEAR(loss_in(ranks.out), loss_in(loaded.out), 1e-4);
  EXPECT_EQ(sluice({"eval", config, "--batches", "0"}).code, 2);
}

TEST(Train, BeginsWithTheWeightsOfADirectory) {
  const Folder folder;
  const std::string source = hub_directory(folder, "llama");
  const std::string config = config_for(folder, source);
  const Outcome outcome = sluice({"train", config, "--ranks", "2"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_in(outcome.err, {"loaded 30 tensors, "});
  const Outcome benchmark = sluice({"train", config, "--recipe", "benchmark", "--benchmark.warmup_steps", "1"});
  ASSERT_EQ(benchmark.code, 0) << benchmark.err;
  EXPECT_EQ(benchmark.err.find("loaded "), std::string::npos);
  const Outcome asked = sluice(
      {"bench", config, "--recipe", "benchmark", "--model.load_weights", "true", "--benchmark.warmup_steps", "1"});
  ASSERT_EQ(asked.code, 0) << asked.err;
  expect_in(asked.err, {"loaded 30 tensors, "});
  // Fields laid over config.json that make it another model.
  const Outcome other = sluice({"train", config, "--model.config.num_hidden_layers", "1"});
  EXPECT_EQ(other.code, 2);
  expect_in(other.err,
            {"does not hold the", "that the model lacks", "config.json and the weights must be of one model"});
  const Outcome nothing = sluice({"train", folder.file("none.yaml", small_config()), "--model.load_weights", "true"});
  EXPECT_EQ(nothing.code, 2);
  expect_in(nothing.err, {"model.load_weights: model.config names no directory"});
}

// Said once for a command, by every command that builds the network.
TEST(Train, FieldsThatNobodyReadsAreToldOnce) {
  const Folder folder;
  const std::string source = hub_directory(folder, "qwen3_moe"), config = config_for(folder, source);
  const std::string file = source + "/config.json";
  const std::string text = read_file(file, 1 << 16);
  write_file_atomic(file,
                    "{\"use_qk_norm\": false, \"shared_expert_intermediate_size\": 16,\n\"partial_rotary_factor\": "
                    "0.5, \"attention_multiplier\": Infinity, \"max_length\": 20, \"initializer_factor\": 0," +
                        text.substr(text.find('{') + 1));
  const std::vector<std::vector<std::string>> commands = {
      {"train", config},
      {"plan", config, "--profile", "h200"},
      {"bench", config, "--steps", "1", "--benchmark.warmup_steps", "1"},
      {"eval", config, "--batches", "1"},
      {"generate", source, "--tokens", "1", "--max-tokens", "1"},
      {"convert", source, folder.path("out")}};
  for (const std::vector<std::string>& command : commands) {
    const Outcome outcome = sluice(command);
    SCOPED_TRACE(command.front() + outcome.err);
    EXPECT_EQ(outcome.code, 0);
    for (const char* const field :
         {"config.json:1: use_qk_norm false: qwen3_moe does not read it; the network is built as with use_qk_norm "
          "true\n",
          "config.json:1: shared_expert_intermediate_size 16: qwen3_moe does not read it; the network is built as with "
          "shared_expert_intermediate_size 0\n",
          "config.json:2: partial_rotary_factor 0.5: qwen3_moe does not read it; the network is built as with "
          "partial_rotary_factor 1\n",
          "config.json:2: attention_multiplier Infinity: qwen3_moe does not read it; if it shapes the authors"}) {
      const size_t at = outcome.err.find(field);
      ASSERT_NE(at, std::string::npos) << field;
      EXPECT_EQ(outcome.err.find(field, at + 1), std::string::npos) << field;
    }
    EXPECT_EQ(outcome.err.find("max_length"), std::string::npos);
    EXPECT_EQ(outcome.err.find("initializer_factor"), std::string::npos);
    EXPECT_EQ(outcome.err.find("go beyond"), std::string::npos);
  }
  expect_in(read_file(folder.path("out/config.json"), 1 << 16), {"\"attention_multiplier\": Infinity"});
}

TEST(Train, SequencesBeyondTheModelsPositionsAreNoted) {
  const Folder folder;
  const std::string config = config_for(folder, hub_directory(folder, "llama"));
  const Outcome longer = sluice({"train", config, "--step_scheduler.max_steps", "1", "--dataset.seq_len", "257"});
  EXPECT_EQ(longer.code, 0) << longer.err;
  expect_in(longer.err, {"sequences of 257 tokens go beyond max_position_embeddings 256 (", "config.json:"});
}

TEST(Train, WeightsThatAreNoNumbersAreNamed) {
  const Folder folder;
  const std::string source = hub_directory(folder, "llama"), config = config_for(folder, source);
  const std::string file = source + "/model.safetensors";
  std::string bytes = read_file(file, 1 << 24);
  bytes.replace(bytes.size() - 8, 8, std::string(8, '\xff'));
  write_file_atomic(file, bytes);
  const Outcome outcome = sluice({"train", config});
  EXPECT_EQ(outcome.code, 2);
  expect_in(outcome.err, {file + ": ", " has ", " NaN value", "the file is damaged"});
  EXPECT_EQ(outcome.err.find("optimizer.lr"), std::string::npos);
}

TEST(Train, WeightsOfAnotherFormAreRefused) {
  const Folder folder;
  const std::string source = hub_directory(folder, "llama"), config = config_for(folder, source);
  std::filesystem::rename(source + "/model.safetensors", source + "/pytorch_model.bin");
  const Outcome outcome = sluice({"train", config});
  EXPECT_EQ(outcome.code, 2);
  expect_in(outcome.err, {source + " has weights that are not read, pytorch_model.bin", "--model.load_weights false"});
  EXPECT_EQ(sluice({"eval", config, "--batches", "1", "--model.load_weights", "false"}).code, 0);
  const Outcome convert = sluice({"convert", source, folder.path("out")});
  EXPECT_EQ(convert.code, 2);
  expect_in(convert.err, {"pytorch_model.bin", "save_pretrained"});
}

}  // namespace
}  // namespace sluice::test
