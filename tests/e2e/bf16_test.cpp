// bf16 on the CPU, as a user has it: every command that takes runtime.dtype.
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "e2e/program.h"

namespace sluice::test {
namespace {

constexpr size_t kMost = 1 << 20;

// A model of bytes that learns a text of one letter pair in a moment, trained in bf16.
class Bf16OnTheCpu : public testing::Test {
 protected:
  void SetUp() override {
    std::string text, yaml = "step_scheduler: {global_batch_size: 4, local_batch_size: 1}\n" + small_model();
    for (int i = 0; i < 2000; ++i) text += "ab";
    const std::string mock = "dataset: {_target_: mock, seq_len: 16}\n";
    const std::string data = "{_target_: bytes, path: " + folder_.file("data.txt", text) + ", seq_len: 16}\n";
    yaml.replace(yaml.find(mock), mock.size(), "dataset: " + data + "validation_dataset: " + data);
    config_ = folder_.file("bytes.yaml", yaml);
    const Outcome outcome = train({"--runtime.dtype", "bf16", "--export", exported_});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
  }

  Outcome train(const std::vector<std::string>& more) const {
    std::vector<std::string> words = {"train", config_, "--checkpoint.checkpoint_dir", run_, "--optimizer.lr", "0.01"};
    words.insert(words.end(), {"--step_scheduler.max_steps", "60", "--step_scheduler.num_epochs", "100"});
    words.insert(words.end(), more.begin(), more.end());
    return sluice(words);
  }
  // What `eval` wrote of the weights that were exported.
  nlohmann::json loss_in(const std::string& dtype) const {
    const std::string file = folder_.path(dtype + ".json");
    const Outcome outcome =
        sluice({"eval", config_, "--model.config.pretrained_model_name_or_path", exported_, "--runtime.dtype", dtype,
                "--model.load_weights", "true", "--batches", "4", "--json", file});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return nlohmann::json::parse(read_file(file, kMost));
  }

  Folder folder_;
  std::string config_, run_ = folder_.path("run"), exported_ = folder_.path("exported");
};

TEST_F(Bf16OnTheCpu, WeightsLeaveInBf16AndText) {
  expect_in(read_file(exported_ + "/config.json", kMost), {R"("torch_dtype": "bfloat16")"});
  // Out of the checkpoint, which has fp32 masters, the same.
  const std::string converted = folder_.path("converted");
  ASSERT_EQ(sluice({"convert", run_, converted}).code, 0);
  EXPECT_EQ(read_file(converted + "/model.safetensors", kMost), read_file(exported_ + "/model.safetensors", kMost));
  for (const std::string& source : {exported_, run_}) {
    for (const char* dtype : {"bf16", "f32"}) {
      const Outcome outcome =
          sluice({"generate", source, "--prompt", "abab", "--max-tokens", "10", "--runtime.dtype", dtype});
      EXPECT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_EQ(outcome.out, "ababababab\n") << source << " in " << dtype;
    }
  }
}

TEST_F(Bf16OnTheCpu, LossesOfTheSameWeightsAgree) {
  const nlohmann::json narrow = loss_in("bf16"), wide = loss_in("f32");
  EXPECT_EQ(narrow.at("dtype"), "bf16");
  EXPECT_EQ(wide.at("dtype"), "fp32");
  // Logits of size 8 or less, each rounded by 2^-8 of itself once for each of a few layers.
  EXPECT_NEAR(narrow.at("loss").get<double>(), wide.at("loss").get<double>(), 2 * 8 * 0x1p-8);
  EXPECT_NE(narrow.at("loss"), wide.at("loss"));
  EXPECT_LT(narrow.at("loss").get<double>(), 0.5);
}

// Its state is fp32 either way.
TEST_F(Bf16OnTheCpu, ARunGoesOnInEitherType) {
  int steps = 60;
  for (const char* dtype : {"f32", "bf16"}) {
    const int before = steps;
    steps += 2;
    const Outcome outcome =
        train({"--runtime.dtype", dtype, "--resume", "--step_scheduler.max_steps", std::to_string(steps)});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    expect_in(outcome.out, {"goes on from step " + std::to_string(before) + " of " + std::to_string(steps)});
  }
}

// bf16 moments stand beside weights without masters, which fp32 cannot go on with.
TEST_F(Bf16OnTheCpu, NarrowStatesAreAnotherRun) {
  const Outcome refused = train({"--runtime.dtype", "bf16", "--optimizer.state_dtype", "bf16", "--resume", run_});
  EXPECT_EQ(refused.code, 2);
  expect_in(refused.err, {"optimizer.state_dtype is fp32 in the checkpoint and bf16 here"});
  const std::string other = folder_.path("other");
  for (const char* steps : {"4", "6"}) {
    const Outcome outcome = train({"--runtime.dtype", "bf16", "--optimizer.state_dtype", "bf16", "--resume",
                                   "--checkpoint.checkpoint_dir", other, "--step_scheduler.max_steps", steps});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
  }
  const Outcome wider = train({"--runtime.dtype", "f32", "--optimizer.state_dtype", "bf16", "--resume", other});
  EXPECT_EQ(wider.code, 2);
  expect_in(wider.err, {"runtime.dtype is bf16 in the checkpoint and f32 here"});
}

}  // namespace
}  // namespace sluice::test
