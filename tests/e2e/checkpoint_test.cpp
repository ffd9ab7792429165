// Checkpoints through the program: convert, generate, eval.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "checkpoint/manifest.h"
#include "e2e/checkpoints.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

std::string contents(const std::string& path) {
  return read_file(path, 1 << 24);
}

TEST(ConvertCheckpoint, AnyLayoutIsTheDirectoryThatOneRankExports) {
  const Folder folder;
  for (const std::string golden : {"qwen3_moe", "deepseek_v3_mtp"}) {
    const std::string one = checkpoint_of(folder, golden + "-one", golden);
    const std::string four = checkpoint_of(folder, golden + "-four", golden, {.world = 4, .pp = 2, .ep = 2});
    EXPECT_TRUE(fs::exists(four + "/rank-00003.safetensors"));
    const Outcome outcome = sluice({"convert", one, folder.path(golden + "-a")});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    expect_in(outcome.out, {golden + "-one (", "step 0, ", " parameters (", " in 1 file, 2 files beside them"});
    ASSERT_EQ(sluice({"convert", four, folder.path(golden + "-b")}).code, 0);
    for (const char* const file : {"/model.safetensors", "/config.json", "/tokenizer.json"}) {
      EXPECT_TRUE(contents(folder.path(golden + "-a") + file) == contents(folder.path(golden + "-b") + file)) << file;
    }
    // And it holds what the hub's directory holds that the checkpoint was made of.
    ASSERT_EQ(sluice({"convert", folder.path(golden), folder.path(golden + "-c")}).code, 0);
    ASSERT_EQ(sluice({"convert", folder.path(golden + "-a"), folder.path(golden + "-d")}).code, 0);
    EXPECT_EQ(fs::file_size(folder.path(golden + "-c") + "/model.safetensors"),
              fs::file_size(folder.path(golden + "-d") + "/model.safetensors"));
  }
  const Outcome half = sluice(
      {"convert", folder.path("qwen3_moe-four"), folder.path("half"), "--dtype", "bf16", "--max-shard-size", "20KB"});
  ASSERT_EQ(half.code, 0) << half.err;
  EXPECT_TRUE(fs::exists(folder.path("half/model.safetensors.index.json")));
  expect_in(contents(folder.path("half/config.json")), {R"("dtype": "bfloat16")"});
}

TEST(ConvertCheckpoint, ARunStandsForItsNewest) {
  const Folder folder;
  fs::create_directory(folder.path("run"));
  const std::string newest = checkpoint_of(folder, "run/step-2", "llama");
  checkpoint_of(folder, "run/step-1", "qwen3");
  fs::create_directory_symlink("step-2", folder.path("run/LATEST"));
  const Outcome outcome = sluice({"convert", folder.path("run"), folder.path("out")});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_in(outcome.out, {"step-2 (llama)"});
  fs::rename(newest, folder.path("elsewhere"));
  const Outcome gone = sluice({"convert", folder.path("run"), folder.path("other")});
  EXPECT_EQ(gone.code, 2);
  expect_in(gone.err, {"run/LATEST leads to ", "step-2, where no checkpoint is"});
}

TEST(ConvertCheckpoint, MistakesAreSaid) {
  const Folder folder;
  const std::string path = checkpoint_of(folder, "step-1", "llama"), out = folder.path("out");
  const auto refused = [&](const std::vector<std::string>& arguments, const std::vector<std::string>& parts) {
    const Outcome outcome = sluice(arguments);
    EXPECT_EQ(outcome.code, 2);
    expect_in(outcome.err, parts);
    EXPECT_FALSE(fs::exists(out));
  };
  refused({"convert", path, path, "--overwrite"}, {"it is read by this run (SOURCE)"});
  const std::string config = contents(path + "/config.json");
  write_file_atomic(path + "/config.json", contents(SLUICE_SOURCE_DIR "/tests/parity/goldens/qwen3_moe/config.json"));
  refused({"convert", path, out},
          {"step-1 has layers.0.attention.qkv.weight as [48, 24], and the model's is [80, 24]"});
  write_file_atomic(path + "/config.json", config);
  std::string values = contents(path + "/rank-00000.safetensors");
  values.back() = static_cast<char>(values.back() ^ 1);
  write_file_atomic(path + "/rank-00000.safetensors", values);
  refused({"convert", path, out}, {"step-1 is damaged", "their hash is another"});
  fs::remove(path + "/manifest.json");
  refused({"convert", path, out}, {"it has no manifest.json"});
}

double loss_in(const std::string& text) {
  const size_t at = text.find("loss ");
  return at == std::string::npos ? -1 : std::stod(text.substr(at + 5));
}

TEST(EvalCheckpoint, ACheckpointIsItsRunWithItsWeights) {
  const Folder folder;
  const std::string path = checkpoint_of(folder, "step-1", "qwen3_moe", {.world = 4, .pp = 2, .ep = 2});
  const Outcome outcome = sluice({"eval", path, "--batches", "3", "--json", folder.path("loss.json")});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_in(outcome.err, {"loaded step 0, ", path});
  expect_in(outcome.out, {path + ": ", " parameters, dataset of 12 x 16 tokens"});
  expect_in(contents(folder.path("loss.json")), {R"("weights": ")" + path + "\""});
  // As the hub directory that it was made of, in any layout and type.
  const Outcome hub = sluice(
      {"eval", path, "--batches", "3", "--model.config.pretrained_model_name_or_path", folder.path("qwen3_moe")});
  ASSERT_EQ(hub.code, 0) << hub.err;
  expect_in(hub.err, {"loaded 102 tensors"});
  EXPECT_EQ(loss_in(outcome.out), loss_in(hub.out));
  const Outcome ranks = sluice({"eval", path, "--batches", "3", "--ranks", "2", "--distributed.ep_size", "2"});
  ASSERT_EQ(ranks.code, 0) << ranks.err;
  EXPECT_NEAR(loss_in(ranks.out), loss_in(outcome.out), 1e-4);
  // Of another configuration.
  const Outcome other = sluice({"eval", path + "/config.yaml", "--batches", "3", "--model.load_weights", "true",
                                "--model.config.pretrained_model_name_or_path", path});
  ASSERT_EQ(other.code, 0) << other.err;
  EXPECT_EQ(loss_in(other.out), loss_in(outcome.out));
  fs::remove(path + "/config.yaml");
  const Outcome without = sluice({"eval", path});
  EXPECT_EQ(without.code, 2);
  expect_in(without.err, {"step-1 has no config.yaml", "model.config.pretrained_model_name_or_path: " + path});
}

TEST(EvalCheckpoint, WeightsOfAnotherModelAreRefused) {
  const Folder folder;
  const std::string path = checkpoint_of(folder, "step-1", "qwen3_moe");
  const auto refused = [&](const std::string& setting, const std::string& value, const std::string& what) {
    const Outcome outcome = sluice({"eval", path, "--batches", "1", setting, value});
    EXPECT_EQ(outcome.code, 2);
    expect_in(outcome.err, {"checkpoint " + path + " has", what});
  };
  refused("--model.config.num_hidden_layers", "1", "which the model (qwen3_moe) lacks");
  refused("--model.config.num_hidden_layers", "9", "no parameter layers.");
  refused("--model.config.vocab_size", "80", "and the model's is [80, 24]");
}

// A run may begin with a checkpoint's weights as with a hub directory's.
TEST(TrainFromCheckpoint, TheFirstLossIsThatOfTheWeights) {
  const Folder folder;
  const std::string path = checkpoint_of(folder, "step-1", "qwen3_moe", {.world = 2, .pp = 2});
  const auto first_loss = [&](const std::string& source, const std::string& loaded) {
    const Outcome outcome = sluice({"train", path + "/config.yaml", "--step_scheduler.max_steps", "1",
                                    "--model.load_weights", "true", "--model.config.pretrained_model_name_or_path",
                                    source, "--checkpoint.checkpoint_dir", folder.path("run")});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    expect_in(outcome.err, {loaded});
    fs::remove_all(folder.path("run"));
    return loss_in(outcome.out);
  };
  const double loss = first_loss(path, "loaded step 0, ");
  EXPECT_GT(loss, 0);
  EXPECT_EQ(loss, first_loss(folder.path("qwen3_moe"), "loaded 102 tensors"));
}

TEST(GenerateFromCheckpoint, WritesWhatTheHubDirectoryWrites) {
  const Folder folder;
  for (const std::string golden : {"deepseek_v3_mtp", "gpt_oss"}) {
    const std::string path = checkpoint_of(folder, golden + "-step", golden, {.world = 2, .ep = 2});
    const Outcome outcome = sluice({"generate", path, "--tokens", "1,2,3", "--max-tokens", "20"});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const Outcome hub = sluice({"generate", folder.path(golden), "--tokens", "1,2,3", "--max-tokens", "20"});
    EXPECT_EQ(outcome.out, hub.out);
    expect_in(outcome.err, {"loaded step 0, "});
  }
  fs::create_directory_symlink("gpt_oss-step", folder.path("LATEST"));
  const Outcome newest = sluice({"generate", folder.path(""), "--tokens", "1,2,3", "--max-tokens", "20"});
  EXPECT_EQ(newest.code, 0) << newest.err;
  expect_in(newest.err, {"loaded step 0, ", "gpt_oss-step"});
}

// Where the run's data were bytes, tokens are.
TEST(GenerateFromCheckpoint, TokensAreWhatTheRunHad) {
  const Folder folder;
  const std::string path = checkpoint_of(folder, "step-1", "llama");
  const Outcome ids = sluice({"generate", path, "--prompt", "\x01\x02"});
  EXPECT_EQ(ids.code, 2);
  expect_in(ids.err, {"the model's tokens are not bytes"});
  Manifest manifest = parse_manifest(contents(path + "/manifest.json"), "manifest");
  manifest.settings["dataset._target_"] = "bytes";
  write_file_atomic(path + "/manifest.json", manifest_text(manifest));
  const Outcome text = sluice({"generate", path, "--prompt", "\x01\x02", "--max-tokens", "5"});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_EQ(text.out.size(), 6U);  // and a newline
}

}  // namespace
}  // namespace sluice::test
