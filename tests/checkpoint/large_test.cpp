// Weights larger than what is read or written at a time, sharded ones, and what is wrong in one way alone.
#include <array>
#include <bit>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>

#include "checkpoint/export_trained.h"
#include "checkpoint/hub_import.h"
#include "comm/inproc/inproc.h"
#include "device/ref/ref_backend.h"
#include "model/cards.h"
#include "support.h"
#include "support/host_tensor.h"
#include "support/stage_config.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::expect_user_error;

// Llama's golden with one layer and a vocabulary of one's own.
ModelConfig llama(int64_t vocab) {
  const std::vector<HfOverride> overrides = {{"vocab_size", fmt::format("{}", vocab), "test"},
                                             {"num_hidden_layers", "1", "test"}};
  return load_model(SLUICE_SOURCE_DIR "/tests/parity/goldens/llama", overrides);
}

struct LargeTest : test::InDirectory {
  // A model's tensors in F32 as one file. What `put` does not write is zero and takes no space on the disk; it is given
  // the tensors' places in the file.
  fs::path write_hub(
      const ModelConfig& model, const std::function<void(std::fstream&, const std::map<std::string, uint64_t>&)>& put,
      const std::function<void(std::vector<safetensors::TensorSpec>&)>& change = [](auto&) {}) const {
    std::vector<safetensors::TensorSpec> specs;
    for (const HubTensor& tensor : family_of(model).tensors(model)) {
      safetensors::Extents shape;
      for (int i = 0; i < tensor.hub_shape.rank(); ++i) shape.push_back(tensor.hub_shape[i]);
      specs.push_back({tensor.hub_name, safetensors::Type::f32, shape});
    }
    change(specs);
    std::string header = "{";
    std::map<std::string, uint64_t> places;
    uint64_t end = 0;
    for (const safetensors::TensorSpec& spec : specs) {
      header += fmt::format(R"({}"{}": {{"dtype": "F32", "shape": {}, "data_offsets": [{}, {}]}})",
                            header.size() > 1 ? ", " : "", spec.name, safetensors::to_text(spec.shape), end,
                            end + bytes_of(spec));
      places[spec.name] = end;
      end += bytes_of(spec);
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    for (auto& [name, place] : places) place += 8 + header.size();
    const fs::path path = write("model.safetensors", test::raw_file(header, 0));
    fs::resize_file(path, 8 + header.size() + end);
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    put(file, places);
    return path;
  }
  // Element i of each tensor is `first` + i, tensor by tensor in the order of their names.
  fs::path write_counting(const ModelConfig& model) const {
    return write_hub(model, [&](std::fstream& file, const std::map<std::string, uint64_t>& places) {
      float first = 0;
      for (const auto& [name, place] : places) {
        std::vector<float> values;
        for (const HubTensor& tensor : family_of(model).tensors(model)) {
          if (tensor.hub_name == name) values.resize(static_cast<size_t>(tensor.hub_shape.numel()));
        }
        for (size_t i = 0; i < values.size(); ++i) values[i] = first + static_cast<float>(i);
        file.seekp(static_cast<std::streamoff>(place));
        file.write(reinterpret_cast<const char*>(values.data()),
                   static_cast<std::streamsize>(sizeof(float) * values.size()));
        first += 1000;
      }
    });
  }
};

std::vector<double> stored(const HubWeights& hub, const std::string& name) {
  const HubWeight& weight = hub.weights().at(name);
  std::vector<double> values(static_cast<size_t>(weight.numel()));
  read_line(weight, 0, 1, tensor_of(values.data(), {weight.numel()}));
  return values;
}

// 12,000 words of 24 are more than the 2^18 elements that a worker decodes at a time; read by several threads and by
// one, whole and in shards, into parameters that had been gathered before.
TEST_F(LargeTest, ImportsAndExportsInPieces) {
  const ModelConfig model = llama(12'000);
  const HubWeights hub(write_counting(model));
  const HubMatch match = match_weights(hub, model);
  const std::vector<double> embedding = stored(hub, "model.embed_tokens.weight"), head = stored(hub, "lm_head.weight");
  EXPECT_EQ(head[280'000], 280'000);
  EXPECT_NE(embedding[280'000], head[280'000]);
  for (const int ranks : {1, 2}) {
    run_ranks(ranks, {.timeout_s = 60}, [&](Communicator& world) {
      HostMemory memory;
      RefBackend backend;
      Context ctx(backend, DType::f64);
      Mesh mesh({.world = ranks}, world);
      Stage stage(test::stage_config(model, DType::f64), mesh, memory);
      std::vector<GroupShard> shards;
      for (FlatGroup* group : stage.groups()) {
        group->initialize(ctx, 1);
        group->begin_gather(ctx);
        group->end_gather(ctx);
        shards.push_back({group});
      }
      Pool pool(2);
      import_weights(ctx, match, shards, {.pool = ranks == 1 ? &pool : nullptr});
      int seen = 0;
      for (FlatGroup* group : stage.groups()) {
        group->begin_gather(ctx);
        group->end_gather(ctx);
        for (const Param* param : group->params()) {
          const bool is_head = param->spec.name == "head.weight";
          if (!is_head && param->spec.name != "embedding.weight") continue;
          EXPECT_TRUE(test::values_of(param->value) == (is_head ? head : embedding)) << param->spec.name;
          ++seen;
        }
      }
      EXPECT_EQ(seen, 2);
      if (ranks > 1) return;
      const fs::path out = directory_ / "out";
      fs::create_directories(out);
      export_trained(ctx, mesh.world, {stage.groups()}, model, out, DType::f32, {.pool = &pool});
      const HubWeights again(out);
      for (const auto& [name, weight] : hub.weights()) EXPECT_TRUE(stored(again, name) == stored(hub, name)) << name;
    });
  }
}

// 700,000 words of 24 are more than the 2^24 elements that are in memory at a time.
TEST_F(LargeTest, ConvertsInParts) {
  const ModelConfig model = llama(700'000);
  constexpr int64_t kLast = 700'000 * 24 - 1;
  const std::map<int64_t, float> marks = {{0, 1},       {(1 << 18) + 3, 2}, {(1 << 24) - 1, 3},
                                          {1 << 24, 4}, {(1 << 24) + 5, 5}, {kLast, 6}};
  const HubWeights hub(write_hub(model, [&](std::fstream& file, const std::map<std::string, uint64_t>& places) {
    for (const auto& [element, value] : marks) {
      file.seekp(static_cast<std::streamoff>(places.at("lm_head.weight") + 4 * static_cast<uint64_t>(element)));
      file.write(reinterpret_cast<const char*>(&value), sizeof value);
    }
  }));
  const fs::path out = directory_ / "out";
  fs::create_directories(out);
  Pool pool(2);
  convert_weights(hub, match_weights(hub, model), out, DType::bf16, {.pool = &pool});
  const HubWeights again(out);
  const HubWeight& head = again.weights().at("lm_head.weight");
  ASSERT_EQ(head.values.spec.type, safetensors::Type::bf16);
  std::map<int64_t, float> found;
  const std::span<const std::byte> bytes = head.values.bytes;
  for (size_t i = 0; i < bytes.size() / 2; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes.data() + 2 * i, sizeof bits);
    if (bits != 0) found[static_cast<int64_t>(i)] = std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
  EXPECT_EQ(found, marks);
}

// What the model has no use for goes along when weights are written anew.
TEST_F(LargeTest, ConvertsWhatIsLeftOutToo) {
  const ModelConfig model = llama(72);
  const std::string name = "model.layers.0.self_attn.rotary_emb.inv_freq";
  const HubWeights hub(write_hub(
      model,
      [&](std::fstream& file, const std::map<std::string, uint64_t>& places) {
        const std::array<float, 3> values = {1, 0.5F, 0.25F};
        file.seekp(static_cast<std::streamoff>(places.at(name)));
        file.write(reinterpret_cast<const char*>(values.data()), sizeof values);
      },
      [&](std::vector<safetensors::TensorSpec>& specs) { specs.push_back({name, safetensors::Type::f32, {3}}); }));
  const HubMatch match = match_weights(hub, model);
  ASSERT_EQ(match.left_out, std::vector{name});
  for (const std::optional<DType> dtype : {std::optional<DType>(), std::optional(DType::bf16)}) {
    const fs::path out = directory_ / (dtype ? "bf16" : "same");
    fs::create_directories(out);
    convert_weights(hub, match, out, dtype, {});
    const HubWeights again(out);
    EXPECT_EQ(again.weights().size(), hub.weights().size());
    EXPECT_EQ(stored(again, name), (std::vector<double>{1, 0.5, 0.25}));
  }
}

// Each by itself: what would hide behind another mistake does not.
TEST_F(LargeTest, OneThingThatDoesNotFitIsEnough) {
  const ModelConfig model = llama(72);
  const auto error_with = [&](const std::function<void(std::vector<safetensors::TensorSpec>&)>& change) {
    const HubWeights hub(write_hub(model, [](auto&, auto&) {}, change));
    return error_of([&] { match_weights(hub, model); });
  };
  expect_user_error(error_with([](auto& specs) {
                      std::erase_if(specs, [](const auto& spec) { return spec.name == "model.norm.weight"; });
                    }),
                    {"1 missing: model.norm.weight"});
  expect_user_error(error_with([](auto& specs) { specs.push_back({"more", safetensors::Type::f32, {2}}); }),
                    {"1 that the model lacks: \"more\""});
  // As many elements in another shape.
  expect_user_error(error_with([](auto& specs) {
                      for (auto& spec : specs) {
                        if (spec.name == "lm_head.weight") std::swap(spec.shape[0], spec.shape[1]);
                      }
                    }),
                    {"1 of another shape or type: lm_head.weight is F32[24, 72], not [72, 24]"});
}

}  // namespace
}  // namespace sluice
