// Which parameters decay: the matrices of every family, not its norms, biases and sinks; or all that gradients train.
// With gradients of zero a step multiplies those that decay by 1 - rate decay and leaves the others' bits.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <mutex>
#include <set>

#include "comm/inproc/inproc.h"
#include "model/cards.h"
#include "optim/adamw.h"
#include "rig.h"
#include "support/compare.h"
#include "support/stage_config.h"

namespace sluice::test {
namespace {

constexpr double kRate = 0.5, kDecay = 0.25;

ModelConfig model_of(const std::string& golden) {
  ModelConfig model = load_model(SLUICE_SOURCE_DIR "/tests/parity/goldens/" + golden);
  model.mtp = golden.ends_with("_mtp");
  return model;
}

// What the names of the hub's tensors say of ours.
std::set<std::string> decayed_of(const ModelConfig& model, DecayedParams which) {
  std::set<std::string> decayed;
  for (const HubTensor& tensor : family_of(model).tensors(model)) {
    const std::string& name = tensor.hub_name;
    const bool vector = name.ends_with("bias") || name.ends_with("sinks") || name.find("norm") != std::string::npos;
    const bool selection = name.ends_with("e_score_correction_bias");
    if (which == DecayedParams::all ? !selection : !vector) decayed.insert(tensor.parameter);
  }
  return decayed;
}

struct Moved {
  int decayed = 0;
  int kept = 0;
};

// The parts of all parameters on one rank, before and after a step. Biases begin with zeros, which nothing could be
// seen to move: all parameters are drawn.
void step_and_compare(Communicator& world, const MeshSpec& spec, const ModelConfig& model, DType dtype,
                      const AdamWOptions& options, std::map<std::string, Moved>& moved) {
  TestContext tc(dtype);
  HostMemory memory;
  Mesh mesh(spec, world);
  Stage stage(stage_config(model, dtype), mesh, memory);
  AdamWOptimizer optimizer(*tc, stage.groups(), options, memory);
  const std::vector<FlatGroup*> groups = stage.groups();
  uint64_t seed = 0;
  for (size_t i = 0; i < groups.size(); ++i) {
    groups[i]->initialize(*tc, 1, optimizer.master(i));
    for (const FlatGroup::Piece& piece : groups[i]->pieces()) {
      randomize(piece.value, ++seed);
      if (!optimizer.master(i)) continue;
      assign(optimizer.master(i).rows(piece.offset, piece.value.numel()), values_of(piece.value));
    }
    groups[i]->zero_gradients(*tc);
  }
  const auto all_values = [&] {
    std::vector<std::vector<double>> values;
    for (const FlatGroup* group : groups) {
      for (const FlatGroup::Piece& piece : group->pieces()) values.push_back(values_of(piece.value));
    }
    return values;
  };
  const std::vector<std::vector<double>> before = all_values();
  optimizer.step(*tc, step_state(tc, 0, kRate, 1, 0.9, 0.999, kDecay));
  const std::vector<std::vector<double>> after = all_values();
  // A rounding at random may go either way.
  const double allowed = (options.stochastic_rounding ? 2 : 1) * unit_roundoff(dtype);

  const std::set<std::string> should_decay = decayed_of(model, options.decayed);
  size_t at = 0;
  for (const FlatGroup* group : groups) {
    for (const FlatGroup::Piece& piece : group->pieces()) {
      const std::string& name = piece.param->spec.name;
      SCOPED_TRACE(name);
      Moved& count = moved[name];
      if (should_decay.contains(name)) {
        std::vector<double> expected = before[at];
        for (double& value : expected) value *= 1 - kRate * kDecay;
        for (size_t i = 0; i < expected.size(); ++i) {
          ASSERT_LE(std::abs(after[at][i] - expected[i]), allowed * std::abs(expected[i]) * 1.0001) << i;
        }
        ++count.decayed;
      } else {
        ASSERT_EQ(after[at], before[at]);
        ++count.kept;
      }
      ++at;
    }
  }
}

struct Case {
  std::string name;
  MeshSpec mesh;
  DType dtype;
  AdamWOptions options;
};

std::vector<Case> cases() {
  const auto with = [](DType state_dtype, bool stochastic, DecayedParams decayed = DecayedParams::matrices) {
    return AdamWOptions{.decayed = decayed, .state_dtype = state_dtype, .stochastic_rounding = stochastic};
  };
  return {{"one_rank", {}, DType::f64, with(DType::f64, false)},
          {"sharded", {.world = 3}, DType::f64, with(DType::f64, false)},
          {"replicated", {.world = 4, .dp_replicate = 2}, DType::f64, with(DType::f64, false)},
          {"masters", {.world = 2}, DType::bf16, with(DType::f32, false)},
          {"rounded_at_random", {.world = 2}, DType::bf16, with(DType::bf16, true)},
          {"all", {.world = 2}, DType::f64, with(DType::f64, false, DecayedParams::all)},
          {"all_rounded_at_random", {}, DType::bf16, with(DType::bf16, true, DecayedParams::all)}};
}

class DecayGroups : public testing::TestWithParam<std::string> {};

TEST_P(DecayGroups, AreTheMatricesOrAll) {
  const ModelConfig model = model_of(GetParam());
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    std::map<std::string, Moved> moved;
    std::mutex mutex;
    run_ranks(c.mesh.world, {.timeout_s = 60}, [&](Communicator& world) {
      std::map<std::string, Moved> mine;
      step_and_compare(world, c.mesh, model, c.dtype, c.options, mine);
      const std::lock_guard lock(mutex);
      for (const auto& [name, count] : mine) {
        moved[name].decayed += count.decayed;
        moved[name].kept += count.kept;
      }
    });
    int decayed = 0, kept = 0;
    for (const auto& [name, count] : moved) {
      EXPECT_NE(count.decayed > 0, count.kept > 0) << name;
      ++(count.decayed > 0 ? decayed : kept);
    }
    std::set<std::string> parameters;
    for (const HubTensor& tensor : family_of(model).tensors(model)) parameters.insert(tensor.parameter);
    EXPECT_EQ(moved.size(), parameters.size());
    // Two norms in each block and the last one; the embedding, the head and four matrices in each block.
    if (c.options.decayed == DecayedParams::matrices) {
      EXPECT_GE(kept, 2 * model.num_layers + 1);
    }
    EXPECT_GE(decayed, 4 * model.num_layers + 2);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, DecayGroups,
                         testing::Values("llama", "qwen3", "qwen3_moe", "deepseek_v3", "deepseek_v3_mtp",
                                         "deepseek_v3_plain_q", "kimi_k2", "gpt_oss"),
                         [](const auto& instance) { return instance.param; });

// What of them are vectors for which shapes do not tell: the biases of stacked experts.
TEST(DecayGroups, BiasesOfExpertsAreNoMatrices) {
  const std::set<std::string> matrices = decayed_of(model_of("gpt_oss"), DecayedParams::matrices);
  int of_experts = 0;
  for (const HubTensor& tensor : family_of(model_of("gpt_oss")).tensors(model_of("gpt_oss"))) {
    if (tensor.parameter_shape.rank() != 2 || matrices.contains(tensor.parameter)) continue;
    EXPECT_TRUE(tensor.hub_name.ends_with("_proj_bias")) << tensor.hub_name;
    ++of_experts;
  }
  EXPECT_EQ(of_experts, 2 * 4);
}

}  // namespace
}  // namespace sluice::test
