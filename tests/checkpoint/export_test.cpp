// Weights of the hub out of any layout.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>

#include "checkpoint/export_trained.h"
#include "device/cpu/cpu_backend.h"
#include "model/cards.h"
#include "saved.h"
#include "support.h"
#include "support/host_tensor.h"
#include "support/stage_config.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::expect_user_error;

ModelConfig model_of(const std::string& golden) {
  ModelConfig model = load_model(SLUICE_SOURCE_DIR "/tests/parity/goldens/" + golden);
  model.mtp = golden.ends_with("_mtp");
  return model;
}

std::map<std::string, std::string> files_of(const fs::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(directory)) {
    files[entry.path().filename()] = entry.is_regular_file() ? read_file(entry.path(), 1 << 25) : "no file";
  }
  return files;
}

struct ExportTest : test::InDirectory {
  // The random weights of seed 3, which are the same in every layout.
  std::map<std::string, std::string> exported(const ModelConfig& model, const MeshSpec& mesh, DType dtype,
                                              const ExportOptions& options) const {
    const fs::path to = directory_ / "exported";
    fs::remove_all(to);
    fs::create_directory(to);
    test::on_stages(mesh, model, DType::f32, [&](Context& ctx, Mesh& meshed, Stage& stage, Memory&) {
      for (FlatGroup* group : stage.groups()) group->initialize(ctx, 3);
      const ExportCount count = export_trained(ctx, meshed.world, {stage.groups()}, model, to, dtype, options);
      EXPECT_EQ(count.bytes, meshed.world.rank() == 0 ? export_bytes(model, dtype) : 0);
    });
    return files_of(to);
  }
};

TEST_F(ExportTest, EveryLayoutGivesTheSameBytes) {
  for (const char* const golden : {"qwen3_moe", "deepseek_v3_mtp", "gpt_oss", "llama"}) {
    SCOPED_TRACE(golden);
    const ModelConfig model = model_of(golden);
    const auto one = exported(model, {}, DType::f32, {.max_file_bytes = 30'000});
    EXPECT_GT(one.size(), 2U);
    const int ep = model.num_experts > 0 ? 2 : 1;
    for (const MeshSpec& mesh : {MeshSpec{.world = 4, .pp = 2, .ep = ep}, MeshSpec{.world = 3},
                                 MeshSpec{.world = 4, .dp_replicate = 2, .ep = ep}}) {
      EXPECT_TRUE(exported(model, mesh, DType::f32, {.max_file_bytes = 30'000}) == one)
          << mesh.world << " " << mesh.pp << " " << mesh.dp_replicate;
    }
  }
}

// However little is in memory at once: tensors as they are, turned stacks, interleaved vectors.
TEST_F(ExportTest, PiecesOfAnySizeGiveTheSameBytes) {
  Pool pool(2);
  for (const char* const golden : {"gpt_oss", "deepseek_v3"}) {
    const ModelConfig model = model_of(golden);
    const auto whole = exported(model, {}, DType::bf16, {});
    for (const int64_t elements : {1, 7, 500}) {
      EXPECT_TRUE(exported(model, {.world = 2}, DType::bf16, {.piece_elements = elements, .pool = &pool}) == whole)
          << golden << " " << elements;
    }
  }
}

// A checkpoint of a model's parameters.
struct ModelCheckpoint : ExportTest {
  const ModelConfig model = model_of("qwen3_moe");
  std::deque<test::SavedState> states;

  ModelCheckpoint() {
    std::map<std::string, Shape> shapes;
    for (const HubTensor& tensor : family_of(model).tensors(model)) shapes[tensor.parameter] = tensor.parameter_shape;
    for (const auto& [name, shape] : shapes) states.emplace_back(name, shape, StateKind::value, DType::f32, 1);
  }
  void convert() const {
    test::save(directory_ / "step-1", test::cut(states, 2, 1));
    fs::create_directory(directory_ / "out");
    export_checkpoint(Checkpoint(directory_ / "step-1"), model, directory_ / "out", DType::f32, {});
  }
  test::SavedState& state(const std::string& name) {
    return *std::ranges::find(states, name, [](const auto& each) { return each.param.name; });
  }
};

TEST_F(ModelCheckpoint, ValuesThatAreNotFiniteAreRefused) {
  const Tensor head = state("head.weight").values;
  head.data<float>()[5] = std::nanf("");
  head.data<float>()[900] = -INFINITY;
  const Error error = error_of([&] { convert(); });
  EXPECT_EQ(error.kind(), ErrorKind::runtime);
  EXPECT_NE(describe(error).find("2 of 1728 values of lm_head.weight are not finite"), std::string::npos)
      << describe(error);
  EXPECT_FALSE(fs::exists(directory_ / "out" / "model.safetensors"));
}

TEST_F(ModelCheckpoint, AnotherModelsParametersAreRefused) {
  states.emplace_back("layers.9.more", Shape{3}, StateKind::value, DType::f32, 1);
  expect_user_error(error_of([&] { convert(); }),
                    {"has a parameter \"layers.9.more\", which the model (qwen3_moe) lacks"});
}

TEST_F(ModelCheckpoint, AMissingParameterIsNamed) {
  std::erase_if(states, [](const auto& each) { return each.param.name == "layers.1.moe.router.weight"; });
  expect_user_error(error_of([&] { convert(); }), {"has no parameter layers.1.moe.router.weight"});
}

TEST_F(ModelCheckpoint, AnotherShapeIsNamed) {
  state("head.weight").param.shape = {24, 72};
  expect_user_error(error_of([&] { convert(); }), {"has head.weight as [24, 72], and the model's is [72, 24]"});
}

// Many small tensors lie in one block, whose hash is computed once: that its bytes change later is not seen, as it
// would be if every tensor's reading hashed it again.
TEST_F(ModelCheckpoint, ABlockIsHashedOnce) {
  test::save(directory_ / "step-1", test::cut(states, 1, 1));
  const fs::path file = directory_ / "step-1" / rank_file_name(0);
  ASSERT_LT(fs::file_size(file), 1U << 20);
  const Checkpoint checkpoint(directory_ / "step-1");
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(static_cast<std::streamoff>(fs::file_size(file) - 1))
      .put('\1');
  EXPECT_NO_THROW(test::read_back(checkpoint, states.front()));
  expect_user_error(error_of([&] { test::read_back(Checkpoint(directory_ / "step-1"), states.front()); }),
                    {"their hash is another"});
}

}  // namespace
}  // namespace sluice
