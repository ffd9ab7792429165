// What ranks of one layout save is what ranks of another load.
#include "checkpoint/trained_state.h"

#include <map>
#include <mutex>

#include "checkpoint/rank_parts.h"
#include "model/cards.h"
#include "saved.h"
#include "support.h"
#include "support/stage_config.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::expect_user_error;

// Whole parameters' states by name, put together from all ranks.
using Whole = std::map<std::string, std::vector<double>>;

struct TrainedStateTest : test::InDirectory {
  const ModelConfig model = load_model(SLUICE_SOURCE_DIR "/tests/parity/goldens/deepseek_v3");

  // Each rank's groups and optimizer; weights are bf16 with f32 masters.
  template <class F>
  void on_ranks(const MeshSpec& mesh, F&& f) const {
    test::on_stages(mesh, model, DType::bf16, [&](Context& ctx, Mesh& meshed, Stage& stage, Memory& memory) {
      AdamWOptimizer optimizer(ctx, stage.groups(), {}, memory);
      for (size_t i = 0; i < stage.groups().size(); ++i) stage.groups()[i]->initialize(ctx, 1, optimizer.master(i));
      f(ctx, meshed.world, TrainedState{stage.groups(), &optimizer});
    });
  }

  // A number of its own for each element of each state.
  static double element(const StateSlice& slice, int64_t i) {
    const uint64_t name = hash64(slice_name(slice.kind, slice.param->name));
    return static_cast<double>((name + static_cast<uint64_t>(slice.first + i)) % 4093) / 64 + 0.001;
  }

  void save(const fs::path& path, const MeshSpec& mesh) const {
    fs::create_directories(path);
    on_ranks(mesh, [&](Context&, Communicator& world, const TrainedState& state) {
      for (const StateSlice& slice : kept_slices(state)) {
        std::vector<double> values;
        for (int64_t i = 0; i < slice.values.numel(); ++i) values.push_back(element(slice, i));
        test::assign(slice.values, values);
      }
      RankWriter writer(kept_slices(state), path / rank_file_name(world.rank()), {});
      leave_part(path, writer.finish());
    });
    test::write_manifest(path, collect_parts(path, mesh.world));
  }

  // What all ranks of a mesh hold after loading; replicas must agree.
  Whole load(const fs::path& path, const MeshSpec& mesh, bool host_visible, bool values_alone) const {
    const Checkpoint checkpoint(path);
    Whole whole;
    std::mutex mutex;
    on_ranks(mesh, [&](Context& ctx, Communicator&, const TrainedState& state) {
      const auto call = values_alone ? load_values : load_state;
      call(ctx, checkpoint, state, host_visible, nullptr, {});
      const std::scoped_lock lock(mutex);
      for (size_t i = 0; i < state.groups.size(); ++i) {
        const auto add = [&](const std::string& kind, const Tensor& array) {
          if (!array) return;
          for (const FlatGroup::Piece& piece : state.groups[i]->pieces()) {
            std::vector<double>& values = whole[kind + piece.param->spec.name];
            values.resize(static_cast<size_t>(piece.param->spec.shape.numel()), -1);
            const std::vector<double> part = test::values_of(array.rows(piece.offset, piece.value.numel()));
            for (size_t j = 0; j < part.size(); ++j) {
              double& at = values[static_cast<size_t>(piece.param->first + piece.first) + j];
              EXPECT_TRUE(at == -1 || at == part[j]) << piece.param->spec.name;
              at = part[j];
            }
          }
        };
        add("master/", state.optimizer->master(i));
        add("moment1/", state.optimizer->moment1(i));
        add("moment2/", state.optimizer->moment2(i));
        add("shard/", state.groups[i]->shard());
      }
    });
    return whole;
  }
};

TEST_F(TrainedStateTest, AnyLayoutLoadsWhatAnyOtherSaved) {
  const std::vector<MeshSpec> meshes = {
      {}, {.world = 3}, {.world = 4, .pp = 2, .ep = 2}, {.world = 4, .dp_replicate = 2, .ep = 4}};
  Whole expected;
  for (size_t from = 0; from < meshes.size(); ++from) {
    const fs::path path = directory_ / fmt::format("{}", from);
    save(path, meshes[from]);
    // Replicas save their parts once.
    EXPECT_LT(Checkpoint(path).bytes(), Checkpoint(directory_ / "0").bytes() * 5 / 4 + meshes.size() * (64 << 10));
    for (const MeshSpec& mesh : meshes) {
      Whole loaded = load(path, mesh, mesh.pp == 1, false);
      if (expected.empty()) expected = loaded;
      EXPECT_TRUE(loaded == expected) << from << " to " << mesh.world << " " << mesh.pp;
    }
  }
  // By the formula: masters exactly, weights rounded once, both moments.
  const ParamSpec head{.name = "head.weight", .shape = {72, 24}};
  for (const StateKind kind : kStateKinds) {
    const StateSlice slice{.kind = kind, .param = &head, .first = 0, .values = {}};
    const std::string name = kind == StateKind::value ? "master/head.weight" : slice_name(kind, "head.weight");
    for (int64_t i = 0; i < head.shape.numel(); ++i) {
      const auto value = static_cast<double>(static_cast<float>(element(slice, i)));
      ASSERT_EQ(expected.at(name)[static_cast<size_t>(i)], value) << name;
      if (kind != StateKind::value) continue;
      ASSERT_EQ(expected.at("shard/head.weight")[static_cast<size_t>(i)], static_cast<double>(bf16(value)));
    }
  }
}

TEST_F(TrainedStateTest, ValuesAloneLeaveMomentsAsTheyAre) {
  save(directory_ / "all", {.world = 2});
  for (const bool host_visible : {true, false}) {
    const Whole all = load(directory_ / "all", {}, host_visible, false),
                values = load(directory_ / "all", {}, host_visible, true);
    EXPECT_EQ(values.at("master/head.weight"), all.at("master/head.weight"));
    EXPECT_EQ(values.at("shard/head.weight"), all.at("shard/head.weight"));
    EXPECT_NE(all.at("moment1/head.weight").front(), 0);
    for (const double moment : values.at("moment1/head.weight")) EXPECT_EQ(moment, 0);
  }
}

TEST_F(TrainedStateTest, ACheckpointWithoutMomentsIsNoStateOfARun) {
  const fs::path path = directory_ / "values";
  fs::create_directories(path);
  on_ranks({}, [&](Context&, Communicator&, const TrainedState& state) {
    test::save(path, {kept_slices({state.groups, nullptr})});
  });
  const Error error = error_of([&] { load(path, {}, true, false); });
  expect_user_error(error, {"has no elements 0 to ", " of moment1/"});
  EXPECT_NO_THROW(load(path, {}, true, true));
}

}  // namespace
}  // namespace sluice
