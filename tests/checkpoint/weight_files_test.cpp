#include "checkpoint/weight_files.h"

#include "checkpoint/hub_match.h"
#include "checkpoint/hub_packing.h"
#include "model/cards.h"
#include "support.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::expect_user_error;

class WeightFilesTest : public test::InDirectory {
 protected:
  // What is said of a directory with these files beside config.json.
  std::string said_of(const std::vector<std::string>& names) const {
    fs::remove_all(directory_);
    fs::create_directories(directory_);
    write("config.json", "{}");
    for (const std::string& name : names) {
      fs::create_directories((directory_ / name).parent_path());
      write(name, "");
    }
    const WeightFiles files = find_weight_files(directory_);
    if (files.readable) return "readable";
    return files.any() ? describe(no_readable_weights(directory_, files, "or else")) : "none";
  }
};

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(WeightFilesTest, AreToldByName) {
  EXPECT_EQ(said_of({}), "none");
  EXPECT_EQ(said_of({"model.safetensors", "pytorch_model.bin"}), "readable");
  EXPECT_EQ(said_of({"model.safetensors.index.json"}), "readable");
  // What a training and a tokenizer leave beside them is none.
  EXPECT_EQ(said_of({"optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "trainer_state.json",
                     "tokenizer.model", "vocab.bin", "README.md", "notes/plan.txt", ".cache/model.safetensors"}),
            "none");
  for (const char* const name :
       {"pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json", "consolidated.00.pth",
        "consolidated.safetensors", "pytorch_model.safetensors", "model-00001-of-00002.safetensors", "model.gguf",
        "tf_model.h5", "flax_model.msgpack", "model.onnx", "model.pt", "weights.ckpt", "model.ckpt.index",
        "model.safetensors.part", "adapter_model.safetensors", "original/consolidated.00.pth", "dcp/__0_0.distcp"}) {
    const std::string said = said_of({name});
    EXPECT_TRUE(
        holds(said, "has weights that are not read, " + std::string(name) + ", and neither model.safetensors nor"))
        << said;
    EXPECT_TRUE(holds(said, "; or else")) << said;
  }
  fs::create_symlink("gone", directory_ / "model.safetensors");
  EXPECT_TRUE(find_weight_files(directory_).readable);
  expect_user_error(error_of([&] { find_weight_files(directory_ / "nowhere"); }), {"cannot look for weights in"});
}

TEST_F(WeightFilesTest, AdviceIsOfWhatIsThere) {
  EXPECT_TRUE(holds(said_of({"pytorch_model.safetensors"}), "rename it to model.safetensors"));
  EXPECT_TRUE(holds(said_of({"model-00001-of-00001.safetensors"}), "rename it to model.safetensors"));
  const std::string shards = said_of({"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"});
  EXPECT_TRUE(holds(shards, "model-00001-of-00002.safetensors and 1 more, and neither")) << shards;
  EXPECT_TRUE(holds(shards, "model.safetensors.index.json says which tensor is in which file: put it beside them"));
  EXPECT_TRUE(holds(said_of({"pytorch_model.bin"}), "save_pretrained"));
  EXPECT_TRUE(holds(said_of({"consolidated.safetensors"}), "save_pretrained"));
  EXPECT_TRUE(holds(said_of({"adapter_model.safetensors"}), "merge the adapter"));
  EXPECT_TRUE(holds(said_of({"checkpoint-500/model.safetensors"}), "name its directory checkpoint-500"));
  EXPECT_TRUE(holds(said_of({"model.safetensors.tmp-77"}), "model.safetensors.tmp-77 was not written to its end"));
  expect_user_error(error_of([&] { safetensors::Model model(directory_); }),
                    {"weights that are not read, model.safetensors.tmp-77"});
}

TEST_F(WeightFilesTest, PackingsThatAreNotReadAreNamed) {
  const ModelConfig model = load_model(SLUICE_SOURCE_DIR "/tests/parity/goldens/llama");
  const auto said = [&](const std::string& config, const std::string& tensor) {
    write("config.json", config);
    write("model.safetensors",
          test::raw_file("{\"" + tensor + "\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2));
    return describe(error_of([&] {
      const HubWeights hub(directory_);
      match_weights(hub, model);
    }));
  };
  // As Kimi K2 Thinking's.
  const std::string int4 = said(R"({"quantization_config": {"quant_method": "compressed-tensors", "format":
    "pack-quantized", "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 32}}}}})",
                                "model.layers.0.mlp.up_proj.weight_packed");
  EXPECT_TRUE(holds(int4, "its weights are packed by compressed-tensors (pack-quantized, 4 bits), which is not read"))
      << int4;
  EXPECT_TRUE(holds(int4, "decompress them"));
  EXPECT_TRUE(holds(said(R"({"quantization_config": {"quant_method": "gptq", "bits": 4}})", "a.qweight"),
                    "packed by gptq (4 bits)"));
  const auto plain = [&](const std::string& tensor) {
    write("config.json", "{");
    write("model.safetensors",
          test::raw_file("{\"" + tensor + "\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8));
    return describe(error_of([&] {
      const HubWeights hub(directory_);
      match_weights(hub, model);
    }));
  };
  EXPECT_TRUE(holds(plain("a.weight_packed"), "packed by compressed-tensors, which"));
  EXPECT_TRUE(holds(plain("a.qweight"), "packed by GPTQ or AWQ, which"));
  EXPECT_TRUE(holds(plain("a.weight"), "does not hold the"));
}

}  // namespace
}  // namespace sluice
