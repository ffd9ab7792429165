// What the optimizer keeps for bf16 parameters, and that steps smaller than their precision count.
#include "optim/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <mutex>

#include "comm/inproc/inproc.h"
#include "support/compare.h"
#include "support/test_context.h"

namespace sluice::test {
namespace {

using Weights = std::map<std::string, std::vector<double>>;

ParamSpec spec(const std::string& name, Shape shape, InitKind init, ParamMesh mesh = ParamMesh::dense) {
  return {.name = name, .shape = shape, .mesh = mesh, .init = init, .init_std = 0.02};
}

Tensor step_state(TestContext& tc, int step, double rate) {
  return tc.of(
      {kStepSlots}, DType::f64,
      {rate, 1 - std::pow(0.9, step + 1), 1 - std::pow(0.999, step + 1), 1, 1, 1, static_cast<double>(step), 0});
}

// A dense group over all ranks and one of experts over each alone, on one rank of a world.
class Model {
 public:
  Model(TestContext& tc, Communicator& world, const AdamWOptions& options)
      : tc_(tc),
        expert_(spec("experts", {6, 5, 7}, InitKind::normal, ParamMesh::expert), world.rank(), world.size()),
        self_(world.split("self", [](int rank) { return rank; })),
        dense_("dense", {&norm_, &proj_}, world, nullptr, {.dtype = tc.dtype()}, memory_, nullptr),
        experts_("experts", {&expert_}, *self_, nullptr, {.dtype = tc.dtype()}, memory_, nullptr),
        optimizer_(*tc, groups(), options, memory_) {
    for (size_t i = 0; i < 2; ++i) groups()[i]->initialize(*tc, 9, optimizer_.master(i));
  }

  std::vector<FlatGroup*> groups() { return {&dense_, &experts_}; }
  const AdamWOptimizer& optimizer() const { return optimizer_; }

  // Gradients are functions of the place in the parameter; those of the dense group come from the first rank.
  void step(int step, double rate) {
    for (FlatGroup* group : groups()) {
      group->zero_gradients(*tc_);
      for (Param* param : group->params()) {
        if (group == &dense_ && self_->world_rank() != 0) continue;
        std::vector<double> values(static_cast<size_t>(param->grad.numel()));
        for (size_t i = 0; i < values.size(); ++i) {
          values[i] = 0.01 * static_cast<double>(1 + (static_cast<size_t>(param->first) + i) % 5);
        }
        assign(param->grad, values);
      }
      group->begin_reduce(*tc_);
      group->end_reduce(*tc_);
    }
    optimizer_.step(*tc_, step_state(tc_, step, rate));
  }

  void collect(Weights& into) {
    for (FlatGroup* group : groups()) {
      for (const FlatGroup::Piece& piece : group->pieces()) {
        std::vector<double>& values = into[piece.param->spec.name];
        values.resize(static_cast<size_t>(piece.param->spec.shape.numel()));
        const std::vector<double> part = values_of(piece.value);
        std::copy(part.begin(), part.end(), values.begin() + piece.param->first + piece.first);
      }
    }
  }

 private:
  TestContext& tc_;
  HostMemory memory_;
  Param norm_{spec("norm", {70}, InitKind::ones), 0, 1};
  Param proj_{spec("proj", {9, 40}, InitKind::normal), 0, 1};
  Param expert_;
  std::unique_ptr<Communicator> self_;
  FlatGroup dense_;
  FlatGroup experts_;
  AdamWOptimizer optimizer_;
};

// The weights after some steps, put together from all ranks.
Weights weights_after(int ranks, int steps, double rate, const AdamWOptions& options) {
  Weights weights;
  std::mutex mutex;
  run_ranks(ranks, {.timeout_s = 60}, [&](Communicator& world) {
    TestContext tc(DType::bf16);
    Model model(tc, world, options);
    for (int step = 0; step < steps; ++step) model.step(step, rate);
    const std::lock_guard lock(mutex);
    model.collect(weights);
  });
  return weights;
}

TEST(AdamWOptimizer, RoundingDoesNotDependOnTheLayout) {
  const AdamWOptions options{.state_dtype = DType::bf16, .seed = 3};
  const Weights one = weights_after(1, 3, 1e-3, options);
  EXPECT_EQ(weights_after(2, 3, 1e-3, options), one);
  EXPECT_EQ(weights_after(3, 3, 1e-3, options), one);
  // It was at random, and the seed matters.
  EXPECT_NE(weights_after(1, 3, 1e-3, {.state_dtype = DType::bf16, .seed = 4}), one);
  EXPECT_NE(weights_after(1, 3, 1e-3, {.state_dtype = DType::bf16, .stochastic_rounding = false}), one);
}

// 200 steps of a 78th of the distance between bf16 numbers below 1.
TEST(AdamWOptimizer, SmallStepsOfBf16ParametersCount) {
  constexpr int kSteps = 200;
  constexpr double kRate = 5e-5, kUlp = 0x1p-8;
  const auto mean = [&](const AdamWOptions& options) {
    const Weights weights = weights_after(1, kSteps, kRate, options);
    double sum = 0;
    for (const double x : weights.at("norm")) sum += x;
    return sum / 70;
  };
  // To nearest, all would be lost.
  EXPECT_EQ(mean({.state_dtype = DType::bf16, .stochastic_rounding = false}), 1);
  const double share = kRate / kUlp, deviation = kUlp * std::sqrt(kSteps * share * (1 - share));
  EXPECT_NEAR(mean({.state_dtype = DType::bf16}), 1 - kSteps * kRate, mean_tolerance(deviation, 70));
  EXPECT_NEAR(mean({.state_dtype = DType::f32}), 1 - kSteps * kRate, kUlp / 2);
}

TEST(AdamWOptimizer, MastersBeginWithTheValuesBeforeRounding) {
  run_ranks(1, {.timeout_s = 60}, [&](Communicator& world) {
    TestContext tc(DType::bf16), exact(DType::f32);
    Model model(tc, world, {.state_dtype = DType::f32}), of_f32(exact, world, {.state_dtype = DType::f32});
    for (size_t i = 0; i < 2; ++i) {
      const Tensor& shard = model.groups()[i]->shard();
      const Tensor& master = model.optimizer().master(i);
      EXPECT_TRUE(same(master, of_f32.groups()[i]->shard()));
      EXPECT_FALSE(of_f32.optimizer().master(i).defined());
      const Tensor rounded = tc.empty(shard.shape());
      assign(rounded, values_of(master));
      EXPECT_TRUE(same(shard, rounded));
      EXPECT_NE(values_of(shard), values_of(master));
    }
    model.step(0, 1e-3);
    const Tensor rounded = tc.empty(model.groups()[0]->shard().shape());
    assign(rounded, values_of(model.optimizer().master(0)));
    EXPECT_TRUE(same(model.groups()[0]->shard(), rounded));
  });
}

// Bytes of state a bf16 parameter has: moments and master in f32, or moments in bf16.
TEST(AdamWOptimizer, StateIsCounted) {
  const auto bytes = [](DType state_dtype) {
    size_t counted = 0;
    run_ranks(1, {.timeout_s = 60}, [&](Communicator& world) {
      TestContext tc(DType::bf16);
      HostMemory memory;
      Param param(spec("w", {1 << 14}, InitKind::zeros), 0, 1);
      FlatGroup group("w", {&param}, world, nullptr, {.dtype = DType::bf16}, memory, nullptr);
      const AdamWOptimizer optimizer(*tc, {&group}, {.state_dtype = state_dtype}, memory);
      counted = memory.ledger().at_peak(MemoryKind::optimizer);
    });
    return counted;
  };
  const auto tensor = [](size_t element) { return Arena::footprint(element << 14); };
  EXPECT_EQ(bytes(DType::f32), 3 * tensor(4));
  EXPECT_EQ(bytes(DType::bf16), 2 * tensor(2));
}

}  // namespace
}  // namespace sluice::test
