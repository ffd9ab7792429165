#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "checkpoint/export_trained.h"
#include "checkpoint/hub_import.h"
#include "comm/inproc/inproc.h"
#include "device/cpu/cpu_backend.h"
#include "model/cards.h"
#include "support.h"
#include "support/host_tensor.h"
#include "support/stage_config.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::expect_user_error;

fs::path golden(const std::string& name) {
  return fs::path(SLUICE_SOURCE_DIR "/tests/parity/goldens") / name;
}

// The parameters of a model on one rank of a mesh.
class ModelRig {
 public:
  ModelRig(const ModelConfig& model, const MeshSpec& mesh, Communicator& world, DType dtype)
      : ModelRig(test::stage_config(model, dtype), mesh, world, dtype) {}
  ModelRig(const StageConfig& stage, const MeshSpec& mesh, Communicator& world, DType dtype)
      : mesh_(mesh, world), context_(backend_, dtype), stage_(stage, mesh_, memory_) {}

  Context& context() { return context_; }
  std::vector<FlatGroup*> groups() { return stage_.groups(); }
  ImportCount import_from(const HubMatch& match, bool host_visible = true) {
    std::vector<GroupShard> shards;
    for (FlatGroup* group : groups()) {
      group->initialize(context_, 1);
      for (const FlatGroup::Piece& piece : group->pieces()) test::poison(piece.value);
      shards.push_back({group});
    }
    return import_weights(context_, match, shards,
                          {.pool = host_visible ? &pool_ : nullptr, .host_visible = host_visible});
  }
  // This rank's elements go into arrays of the whole parameters.
  void collect(std::map<std::string, std::vector<double>>& into) {
    for (const FlatGroup* group : groups()) {
      for (const FlatGroup::Piece& piece : group->pieces()) {
        std::vector<double>& whole = into[piece.param->spec.name];
        whole.resize(static_cast<size_t>(piece.param->spec.shape.numel()), std::nan(""));
        const std::vector<double> part = test::values_of(piece.value);
        std::copy(part.begin(), part.end(), whole.begin() + piece.param->first + piece.first);
      }
    }
  }
  void export_to(const fs::path& directory, const ModelConfig& model, DType dtype, uint64_t max_file_bytes) {
    export_trained(context_, mesh_.world, {groups()}, model, directory, dtype,
                   {.max_file_bytes = max_file_bytes, .pool = &pool_});
  }

 private:
  HostMemory memory_;
  Pool pool_{2};
  CpuBackend backend_{pool_};
  Mesh mesh_;
  Context context_;
  Stage stage_;
};

using Parameters = std::map<std::string, std::vector<double>>;

// Imports on every rank and puts the parameters together again.
Parameters import_all(const ModelConfig& model, const HubMatch& match, const MeshSpec& mesh, DType dtype,
                      bool host_visible = true) {
  Parameters whole;
  std::mutex mutex;
  InprocWorld world(mesh.world);
  world.run([&](int rank) {
    const std::unique_ptr<Communicator> ranks = world.communicator(rank);
    ModelRig rig(model, mesh, *ranks, dtype);
    rig.import_from(match, host_visible);
    const std::lock_guard lock(mutex);
    rig.collect(whole);
  });
  return whole;
}

template <class F>
void on_one_rank(const ModelConfig& model, DType dtype, F&& f) {
  InprocWorld world(1);
  world.run([&](int rank) {
    const std::unique_ptr<Communicator> ranks = world.communicator(rank);
    ModelRig rig(model, {}, *ranks, dtype);
    f(rig);
  });
}

std::vector<double> values_of(const HubWeights& hub, const std::string& name) {
  const HubWeight& weight = hub.weights().at(name);
  std::vector<double> values(static_cast<size_t>(weight.numel()));
  read_line(weight, 0, 1, tensor_of(values.data(), {weight.numel()}));
  return values;
}

std::vector<double> joined(std::initializer_list<std::vector<double>> parts) {
  std::vector<double> all;
  for (const std::vector<double>& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// Stored in f32 whatever the rest is in.
bool stays_f32(const std::string& name) {
  return name.ends_with("e_score_correction_bias");
}

// Every tensor of two directories, bit for bit; of those that stay in f32 only the form if `but_f32`.
void expect_same_weights(const fs::path& one, const fs::path& other, bool but_f32 = false) {
  const safetensors::Model a(one), b(other);
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const auto& [name, tensor] : a.tensors()) {
    const safetensors::StoredTensor& copy = b.at(name);
    EXPECT_EQ(tensor.spec, copy.spec);
    ASSERT_EQ(tensor.bytes.size(), copy.bytes.size());
    if (but_f32 && stays_f32(name)) continue;
    EXPECT_EQ(std::memcmp(tensor.bytes.data(), copy.bytes.data(), tensor.bytes.size()), 0) << name;
  }
}

struct HubTest : test::InDirectory {
  // A directory with these tensors, F32 unless they say otherwise.
  fs::path write_hub(const std::string& name, const std::vector<safetensors::TensorSpec>& specs,
                     const std::map<std::string, std::string>& contents = {}) const {
    fs::create_directories(directory_ / name);
    safetensors::Writer writer(directory_ / name / "model.safetensors", specs);
    const std::vector<safetensors::Entry> entries = writer.entries();
    for (const safetensors::Entry& entry : entries) {
      const auto found = contents.find(entry.spec.name);
      writer.write(entry.spec.name,
                   test::bytes_of(found == contents.end() ? std::string(entry.bytes, '\1') : found->second));
    }
    writer.finish();
    return directory_ / name;
  }
  // The tensors of a golden, changed by `change`.
  fs::path changed_golden(const std::string& golden_name,
                          const std::function<void(std::vector<safetensors::TensorSpec>&)>& change) const {
    std::vector<safetensors::TensorSpec> specs;
    const safetensors::Model model(golden(golden_name) / "weights.safetensors");
    for (const auto& [name, tensor] : model.tensors()) specs.push_back(tensor.spec);
    change(specs);
    return write_hub("changed", specs);
  }
};

ModelConfig model_of(const std::string& golden_name) {
  ModelConfig model = load_model(golden(golden_name).string());
  model.mtp = golden_name.ends_with("_mtp");
  return model;
}

struct Golden : HubTest, testing::WithParamInterface<const char*> {
  const ModelConfig model = model_of(GetParam());
  const fs::path weights = golden(GetParam()) / "weights.safetensors";
};

TEST_P(Golden, GoesThereAndBackBitForBit) {
  const HubWeights hub(weights);
  const HubMatch match = match_weights(hub, model);
  EXPECT_EQ(match.elements, param_count(model).total);
  EXPECT_EQ(match.items.size() + match.repeats.size(), hub.weights().size());
  EXPECT_EQ(match.repeats.size(), model.mtp ? 2U : 0U);
  check_repeats(match);
  on_one_rank(model, DType::f32, [&](ModelRig& rig) {
    const ImportCount count = rig.import_from(match);
    EXPECT_EQ(count.elements, param_count(model).total);
    EXPECT_EQ(count.tensors, std::ssize(match.items));
    rig.export_to(directory_, model, DType::f32, 20'000);
  });
  EXPECT_TRUE(fs::exists(directory_ / "model.safetensors.index.json"));
  expect_same_weights(weights, directory_);
}

TEST_P(Golden, GoesThereAndBackInBf16) {
  const HubWeights original(weights);
  fs::create_directories(directory_ / "bf16");
  fs::create_directories(directory_ / "back");
  convert_weights(original, match_weights(original, model), directory_ / "bf16", DType::bf16, {});
  const HubWeights hub(directory_ / "bf16");
  const HubMatch match = match_weights(hub, model);
  on_one_rank(model, DType::bf16, [&](ModelRig& rig) {
    rig.import_from(match);
    rig.export_to(directory_ / "back", model, DType::bf16, 1 << 30);
  });
  EXPECT_FALSE(fs::exists(directory_ / "back" / "model.safetensors.index.json"));
  expect_same_weights(directory_ / "bf16", directory_ / "back", true);
  // Rounded once.
  for (const auto& [name, weight] : original.weights()) {
    const std::vector<double> exact = values_of(original, name), rounded = values_of(hub, name);
    for (size_t i = 0; i < exact.size(); ++i)
      ASSERT_EQ(rounded[i], stays_f32(name) ? exact[i] : static_cast<double>(bf16(exact[i]))) << name;
  }
}

TEST_P(Golden, EveryLayoutGetsTheSame) {
  const HubWeights hub(weights);
  const HubMatch match = match_weights(hub, model);
  const Parameters one = import_all(model, match, {}, DType::f64);
  for (const auto& [name, values] : one) {
    for (const double value : values) ASSERT_FALSE(std::isnan(value)) << name;
  }
  const int ep = model.num_experts > 0 ? 2 : 1;
  for (const MeshSpec& mesh :
       {MeshSpec{.world = 3}, MeshSpec{.world = 4, .ep = ep}, MeshSpec{.world = 4, .pp = 2, .ep = ep},
        MeshSpec{.world = 4, .dp_replicate = 2, .ep = 2 * ep}}) {
    EXPECT_EQ(import_all(model, match, mesh, DType::f64), one) << mesh.world << " " << mesh.pp << " " << mesh.ep;
  }
  EXPECT_EQ(import_all(model, match, {.world = 2}, DType::f64, false), one) << "through uploads";
}

INSTANTIATE_TEST_SUITE_P(Families, Golden,
                         testing::Values("qwen3_moe", "llama", "qwen3", "deepseek_v3", "deepseek_v3_plain_q",
                                         "deepseek_v3_mtp", "kimi_k2", "gpt_oss"),
                         [](const auto& family) { return std::string(family.param); });

// By names and places written out here.
TEST_F(HubTest, TensorsStandWhereTheModelWantsThem) {
  const ModelConfig model = load_model(golden("qwen3_moe").string());
  const HubWeights hub(golden("qwen3_moe") / "weights.safetensors");
  const Parameters ours = import_all(model, match_weights(hub, model), {}, DType::f64);
  const auto layer = [&](const std::string& name) { return values_of(hub, "model.layers.1." + name + ".weight"); };
  EXPECT_EQ(ours.at("layers.1.attention.qkv.weight"),
            joined({layer("self_attn.q_proj"), layer("self_attn.k_proj"), layer("self_attn.v_proj")}));
  EXPECT_EQ(ours.at("layers.1.attention.out.weight"), layer("self_attn.o_proj"));
  EXPECT_EQ(ours.at("layers.1.moe.router.weight"), layer("mlp.gate"));
  std::vector<double> gate_up, down;
  for (int64_t e = 0; e < model.num_experts; ++e) {
    const std::string expert = fmt::format("mlp.experts.{}.", e);
    gate_up = joined({gate_up, layer(expert + "gate_proj"), layer(expert + "up_proj")});
    down = joined({down, layer(expert + "down_proj")});
  }
  EXPECT_EQ(ours.at("layers.1.moe.experts.gate_up"), gate_up);
  EXPECT_EQ(ours.at("layers.1.moe.experts.down"), down);
  EXPECT_EQ(ours.at("embedding.weight"), values_of(hub, "model.embed_tokens.weight"));
  EXPECT_EQ(ours.at("head.weight"), values_of(hub, "lm_head.weight"));

  // The same experts, stacked.
  std::vector<safetensors::TensorSpec> specs;
  std::map<std::string, std::string> contents;
  const auto add = [&](const std::string& name, const safetensors::Extents& shape, const std::vector<double>& values) {
    specs.push_back({name, safetensors::Type::f64, shape});
    contents[name] = std::string(reinterpret_cast<const char*>(values.data()), 8 * values.size());
  };
  for (const auto& [name, weight] : hub.weights()) {
    if (name.find(".experts.") == std::string::npos) add(name, weight.shape, values_of(hub, name));
  }
  const int64_t E = model.num_experts, F = model.moe_ffn, D = model.hidden_size;
  for (int64_t l = 0; l < model.num_layers; ++l) {
    add(fmt::format("model.layers.{}.mlp.experts.gate_up_proj", l), {E, 2 * F, D},
        ours.at(fmt::format("layers.{}.moe.experts.gate_up", l)));
    add(fmt::format("model.layers.{}.mlp.experts.down_proj", l), {E, D, F},
        ours.at(fmt::format("layers.{}.moe.experts.down", l)));
  }
  const HubWeights stacked(write_hub("stacked", specs, contents));
  EXPECT_EQ(import_all(model, match_weights(stacked, model), {}, DType::f64), ours);
}

// GPT-OSS's stacks, by places written out here: [E, in, out] there, gates and ups alternating.
TEST_F(HubTest, StacksOfGptOssAreTurned) {
  const ModelConfig model = load_model(golden("gpt_oss").string());
  const HubWeights hub(golden("gpt_oss") / "weights.safetensors");
  const Parameters ours = import_all(model, match_weights(hub, model), {}, DType::f64);
  const int64_t E = model.num_experts, F = model.moe_ffn, D = model.hidden_size;
  const auto stored = [&](const std::string& name) { return values_of(hub, "model.layers.1.mlp.experts." + name); };
  const auto at = [](const std::vector<double>& values, int64_t i) { return values.at(static_cast<size_t>(i)); };
  const std::vector<double> gate_up = stored("gate_up_proj"), gate_up_bias = stored("gate_up_proj_bias"),
                            down = stored("down_proj");
  for (int64_t e = 0; e < E; ++e) {
    for (int64_t half = 0; half < 2; ++half) {
      for (int64_t f = 0; f < F; ++f) {
        ASSERT_EQ(at(ours.at("layers.1.moe.experts.gate_up_bias"), (e * 2 + half) * F + f),
                  at(gate_up_bias, e * 2 * F + 2 * f + half));
        for (int64_t d = 0; d < D; ++d) {
          ASSERT_EQ(at(ours.at("layers.1.moe.experts.gate_up"), ((e * 2 + half) * F + f) * D + d),
                    at(gate_up, (e * D + d) * 2 * F + 2 * f + half));
        }
      }
    }
    for (int64_t d = 0; d < D; ++d) {
      for (int64_t f = 0; f < F; ++f)
        ASSERT_EQ(at(ours.at("layers.1.moe.experts.down"), (e * D + d) * F + f), at(down, (e * F + f) * D + d));
    }
  }
}

// What a balance loss over the global batch remembers is the run's own.
TEST_F(HubTest, SharesOfLoadsAreNeitherReadNorWritten) {
  const ModelConfig model = load_model(golden("qwen3_moe").string());
  const HubWeights hub(golden("qwen3_moe") / "weights.safetensors");
  const HubMatch match = match_weights(hub, model);
  StageConfig stage = test::stage_config(model, DType::f32);
  for (BlockConfig& block : stage.blocks) {
    block.moe.aux_loss_coef = 0.1;
    block.moe.aux_loss_over = BalanceOver::global_batch;
  }
  InprocWorld world(1);
  const std::unique_ptr<Communicator> ranks = world.communicator(0);
  ModelRig rig(stage, {}, *ranks, DType::f32);
  EXPECT_EQ(rig.import_from(match).elements, param_count(model).total);
  int64_t shares = 0;
  for (const FlatGroup* group : rig.groups()) {
    for (const FlatGroup::Piece& piece : group->pieces()) {
      const std::vector<double> values = test::values_of(piece.value);
      const auto untouched = std::ranges::count_if(values, [](double value) { return std::isnan(value); });
      EXPECT_EQ(untouched, piece.param->spec.holds_shares ? std::ssize(values) : 0) << piece.param->spec.name;
      shares += piece.param->spec.holds_shares ? 1 : 0;
    }
  }
  EXPECT_EQ(shares, std::ssize(stage.blocks));
  fs::create_directories(directory_ / "out");
  rig.export_to(directory_ / "out", model, DType::f32, uint64_t{1} << 30);
  EXPECT_EQ(match_weights(HubWeights(directory_ / "out"), model).elements, param_count(model).total);
}

TEST_F(HubTest, MastersAreWrittenToo) {
  const ModelConfig model = load_model(golden("llama").string());
  const HubWeights hub(golden("llama") / "weights.safetensors");
  const HubMatch match = match_weights(hub, model);
  on_one_rank(model, DType::bf16, [&](ModelRig& rig) {
    std::vector<std::vector<float>> masters;
    std::vector<GroupShard> shards;
    for (FlatGroup* group : rig.groups()) {
      masters.emplace_back(static_cast<size_t>(group->shard().numel()));
      shards.push_back({group, tensor_of(masters.back().data(), {group->shard().numel()})});
    }
    import_weights(rig.context(), match, shards, {});
    size_t seen = 0;
    for (const GroupShard& shard : shards) {
      for (const FlatGroup::Piece& piece : shard.group->pieces()) {
        const std::vector<double> rounded = test::values_of(piece.value);
        const std::vector<double> exact = test::values_of(shard.master.rows(piece.offset, piece.value.numel()));
        for (size_t i = 0; i < exact.size(); ++i) ASSERT_EQ(rounded[i], static_cast<double>(bf16(exact[i])));
        if (piece.param->spec.name == "head.weight") {
          EXPECT_EQ(exact, values_of(hub, "lm_head.weight"));
          ++seen;
        }
      }
    }
    EXPECT_EQ(seen, 1U);
  });
}

TEST_F(HubTest, WhatDoesNotFitIsListedByName) {
  const ModelConfig model = load_model(golden("qwen3_moe").string());
  const fs::path path = changed_golden("qwen3_moe", [](std::vector<safetensors::TensorSpec>& specs) {
    std::erase_if(specs, [](const auto& spec) { return spec.name == "model.layers.0.mlp.experts.3.up_proj.weight"; });
    for (auto& spec : specs) {
      if (spec.name == "model.norm.weight") spec.shape.push_back(1);
      if (spec.name == "lm_head.weight") spec.type = safetensors::Type::i32;
    }
    specs.push_back({"model.layers.0.mlp.experts.3.more.weight", safetensors::Type::f32, {2}});
  });
  const HubWeights hub(path);
  expect_user_error(
      error_of([&] { match_weights(hub, model); }),
      {path.string(), "1 missing: model.layers.0.mlp.experts.3.up_proj.weight", "2 of another shape or type",
       "model.norm.weight is F32[24, 1], not [24]", "lm_head.weight is I32[72, 24], not [72, 24]",
       "1 that the model lacks: \"model.layers.0.mlp.experts.3.more.weight\"", "config.json"});
  // Of another family altogether: long lists are cut, with their length.
  const HubWeights other(golden("deepseek_v3") / "weights.safetensors");
  expect_user_error(error_of([&] { match_weights(other, model); }), {"missing: ", "that the model lacks: ", ", ... "});
}

// Names of programs that wrap a model, and what lacks a part of it.
TEST_F(HubTest, TheCauseOfOtherNamesIsTold) {
  const ModelConfig model = load_model(golden("llama").string());
  const auto advice = [&](const std::function<std::string(std::string)>& rename) {
    const fs::path path = changed_golden("llama", [&](std::vector<safetensors::TensorSpec>& specs) {
      for (auto& spec : specs) spec.name = rename(spec.name);
    });
    const HubWeights hub(path);
    return error_of([&] { match_weights(hub, model); }).hint();
  };
  const auto within = [](std::string name, const std::string& what, const std::string& part) {
    if (const size_t at = name.find(what); at != std::string::npos) name.insert(at + what.size(), part);
    return name;
  };
  EXPECT_NE(advice([](const std::string& name) { return "module." + name; }).find("have \"module.\" in them"),
            std::string::npos);
  EXPECT_NE(advice([&](const std::string& name) {
              return within(name, "layers.0.", "_orig_mod.");
            }).find("have \"_orig_mod.\" in them"),
            std::string::npos);
  EXPECT_NE(advice([](const std::string& name) { return "base_model.model." + name; }).find("\"base_model.model.\""),
            std::string::npos);
  EXPECT_NE(advice([](std::string name) {
              return name.starts_with("model.") ? name.substr(6) : name;
            }).find("lack \"model.\" at their beginning"),
            std::string::npos);
  const fs::path headless = changed_golden("llama", [](std::vector<safetensors::TensorSpec>& specs) {
    std::erase_if(specs, [](const auto& spec) { return spec.name == "lm_head.weight"; });
  });
  const HubWeights hub(headless);
  expect_user_error(error_of([&] { match_weights(hub, model); }),
                    {"1 missing: lm_head.weight", "tie_word_embeddings: true"});
  EXPECT_NE(advice([](const std::string& name) { return "x" + name; }).find("must be of one model"), std::string::npos);
}

TEST_F(HubTest, TensorsWithoutElementsAreLeftOut) {
  const ModelConfig model = load_model(golden("llama").string());
  const HubWeights hub(changed_golden("llama", [](std::vector<safetensors::TensorSpec>& specs) {
    specs.push_back({"scaled_fp8", safetensors::Type::f32, {0}});
  }));
  EXPECT_EQ(match_weights(hub, model).left_out, (std::vector<std::string>{"scaled_fp8"}));
}

// Of an index: what the model lacks does not matter, what it needs is missed by name and file.
TEST_F(HubTest, TensorsThatOnlyTheIndexHas) {
  const ModelConfig model = load_model(golden("llama").string());
  std::string map;
  const fs::path path = changed_golden("llama", [&](std::vector<safetensors::TensorSpec>& specs) {
    for (const auto& spec : specs) map += fmt::format("\"{}\":\"a.safetensors\",", spec.name);
    std::erase_if(specs, [](const auto& spec) { return spec.name == "model.norm.weight"; });
  });
  fs::rename(path / "model.safetensors", path / "a.safetensors");
  const auto index = [&](const std::string& more) {
    std::ofstream(path / "model.safetensors.index.json") << "{\"weight_map\":{" << map << more << "}}";
  };
  index("\"model.layers.9.mlp.up_proj.weight\":\"a.safetensors\"");
  const HubWeights hub(path);
  expect_user_error(
      error_of([&] { match_weights(hub, model); }),
      {"1 missing: model.norm.weight (the index puts it into " + (path / "a.safetensors").string() + ")"});
}

// Each kind of value is seen where it stands on the hub, on whatever rank it comes to.
TEST_F(HubTest, ValuesThatAreNoNumbersAreNamed) {
  const ModelConfig model = load_model(golden("llama").string());
  const safetensors::Model stored(golden("llama") / "weights.safetensors");
  const auto with = [&](const std::string& tensor, size_t element, float value) {
    std::vector<safetensors::TensorSpec> specs;
    std::map<std::string, std::string> contents;
    for (const auto& [name, weight] : stored.tensors()) {
      specs.push_back(weight.spec);
      contents[name].assign(reinterpret_cast<const char*>(weight.bytes.data()), weight.bytes.size());
    }
    for (auto& spec : specs) {
      if (spec.name != tensor) continue;
      spec.type = safetensors::Type::f32;
      contents[tensor].resize(bytes_of(spec));
    }
    std::memcpy(contents[tensor].data() + element * sizeof value, &value, sizeof value);
    return write_hub("changed", specs, contents);
  };
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  const HubWeights bad(with(name, 37, std::nanf("")));
  const HubMatch match = match_weights(bad, model);
  for (const int ranks : {1, 3}) {
    for (const bool host_visible : {true, false}) {
      const Error error = error_of([&] { import_all(model, match, {.world = ranks}, DType::f32, host_visible); });
      expect_user_error(error, {"model.safetensors: " + name + " has 1 NaN value, the first is element 37", "damaged"});
      EXPECT_EQ(describe(error).find("optimizer.lr"), std::string::npos);
    }
  }
  testing::internal::CaptureStderr();
  const HubWeights large(with(name, 5, -INFINITY));
  import_all(model, match_weights(large, model), {}, DType::f32);
  const std::string warned = testing::internal::GetCapturedStderr();
  EXPECT_NE(warned.find(name + " has 1 infinite value, the first is element 5"), std::string::npos) << warned;
  testing::internal::CaptureStderr();
  const HubWeights whole(golden("llama") / "weights.safetensors");
  import_all(model, match_weights(whole, model), {}, DType::f32);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(HubTest, LayersThatPredictFurtherTokensAreLeftOut) {
  const ModelConfig model = load_model(golden("llama").string());
  const std::string layer = fmt::format("model.layers.{}.", model.num_layers);
  const auto with = [&](bool eh_proj) {
    return changed_golden("llama", [&](std::vector<safetensors::TensorSpec>& specs) {
      specs.push_back({layer + "input_layernorm.weight", safetensors::Type::f32, {24}});
      specs.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", safetensors::Type::f32, {4}});
      if (eh_proj) specs.push_back({layer + "eh_proj.weight", safetensors::Type::f32, {24, 48}});
    });
  };
  const HubWeights hub(with(true));
  const HubMatch match = match_weights(hub, model);
  EXPECT_EQ(match.left_out, (std::vector<std::string>{"model.layers.0.self_attn.rotary_emb.inv_freq",
                                                      layer + "eh_proj.weight", layer + "input_layernorm.weight"}));
  EXPECT_NE(describe(match, hub).find("3 without use here were left out"), std::string::npos) << describe(match, hub);
  const HubWeights bad(with(false));
  expect_user_error(error_of([&] { match_weights(bad, model); }), {"that the model lacks", layer});
}

// The extra layer's copies of embedding and head may be missing; if they are there they are the model's.
TEST_F(HubTest, WhatTheExtraLayerRepeatsMustBeTheSame) {
  const ModelConfig model = model_of("deepseek_v3_mtp");
  const safetensors::Model stored(golden("deepseek_v3_mtp") / "weights.safetensors");
  const std::string layer = fmt::format("model.layers.{}.", model.num_layers);
  const auto rewritten = [&](const std::string& name, const std::function<bool(const std::string&)>& keep,
                             const std::string& changed) {
    std::vector<safetensors::TensorSpec> specs;
    std::map<std::string, std::string> contents;
    for (const auto& [tensor, weight] : stored.tensors()) {
      if (!keep(tensor)) continue;
      specs.push_back(weight.spec);
      std::string& bytes = contents[tensor];
      bytes.assign(reinterpret_cast<const char*>(weight.bytes.data()), weight.bytes.size());
      if (tensor == changed) bytes[bytes.size() - 2] ^= 1;
    }
    return write_hub(name, specs, contents);
  };
  const auto all = [](const std::string&) { return true; };
  for (const char* const repeat : {"embed_tokens.weight", "shared_head.head.weight"}) {
    const HubWeights hub(rewritten("changed", all, layer + repeat));
    const HubMatch match = match_weights(hub, model);
    expect_user_error(error_of([&] { check_repeats(match); }), {layer + repeat, "repeats", "element 1727 is"});
  }
  const HubWeights without(rewritten(
      "without",
      [&](const std::string& name) {
        return !name.ends_with("shared_head.head.weight") && name != layer + "embed_tokens.weight";
      },
      ""));
  const HubMatch match = match_weights(without, model);
  EXPECT_TRUE(match.repeats.empty());
  EXPECT_EQ(match.elements, param_count(model).total);
  // Without the layer its tensors have no use.
  ModelConfig plain = model;
  plain.mtp = false;
  EXPECT_EQ(match_weights(without, plain).left_out.size(),
            match.items.size() - match_weights(without, plain).items.size());
}

TEST_F(HubTest, FilesBesideTheWeightsGoAlong) {
  fs::create_directories(directory_ / "from/sub");
  fs::create_directories(directory_ / "to");
  write(
      "from/config.json",
      R"({"model_type": "llama", "torch_dtype": "float32", "quantization_config": {"quant_method": "fp8"}, "a": [1, 2.5]})");
  for (const char* const name : {"tokenizer.json", "tokenizer_config.json", "merges.txt", "LICENSE", "spiece.model"})
    write(fs::path("from") / name, name);
  write("from/model.safetensors", "no");
  write("from/notes.txt", "no");
  EXPECT_EQ(copy_hub_files(directory_ / "from", directory_ / "to", {}), 6);
  EXPECT_EQ(read_file(directory_ / "to/config.json", 1000),
            "{\n  \"model_type\": \"llama\",\n  \"torch_dtype\": \"bfloat16\",\n  \"a\": [\n    1,\n    2.5\n  ]\n}\n");
  EXPECT_EQ(read_file(directory_ / "to/merges.txt", 1000), "merges.txt");
  EXPECT_FALSE(fs::exists(directory_ / "to/notes.txt"));
  write("from/config.json", R"({"dtype": "bfloat16"})");
  copy_hub_files(directory_ / "from", directory_ / "to", DType::f32);
  EXPECT_EQ(read_file(directory_ / "to/config.json", 1000), "{\n  \"dtype\": \"float32\"\n}\n");
}

}  // namespace
}  // namespace sluice
