// The gradient norm and what clipping makes of it, against closed forms: element i of a parameter has gradient c (i +
// 1), so its n elements add c^2 n (n + 1) (2 n + 1) / 6.
#include "optim/gradient_norm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "comm/inproc/inproc.h"
#include "optim/adamw.h"
#include "rig.h"
#include "support/compare.h"

namespace sluice::test {
namespace {

double squares(int64_t n, double c) {
  const auto x = static_cast<double>(n);
  return c * c * x * (x + 1) * (2 * x + 1) / 6;
}

// Groups of every kind on one rank of a mesh: dense, of experts, and a router's selection bias, which has loads.
class Groups {
 public:
  static constexpr double kFirst = 1, kSecond = 3, kExperts = 5, kLoads = 1000;

  Groups(TestContext& tc, Mesh& mesh)
      : first_(tc, mesh, {.name = "first", .shape = {7}}),
        second_(tc, mesh, {.name = "second", .shape = {25, 8}}),
        experts_(tc, mesh, {.name = "experts", .shape = {4, 5, 9}, .mesh = ParamMesh::expert}),
        bias_(tc, mesh, {.name = "bias", .shape = {4}, .init = InitKind::zeros, .balanced_top_k = 2}) {
    reduce(first_, kFirst);
    reduce(second_, kSecond);
    reduce(experts_, kExperts);
    reduce(bias_, kLoads);
  }
  FlatGroup* first() { return &first_.group(); }
  FlatGroup* second() { return &second_.group(); }
  FlatGroup* experts() { return &experts_.group(); }
  FlatGroup* bias() { return &bias_.group(); }

  static double of_first() { return squares(7, kFirst); }
  static double of_second() { return squares(200, kSecond); }
  static double of_experts() { return squares(180, kExperts); }

 private:
  static void reduce(OneParam& param, double c) {
    param.reduce([c](int64_t i) { return c * static_cast<double>(i + 1); });
  }

  OneParam first_;
  OneParam second_;
  OneParam experts_;
  OneParam bias_;
};

struct Case {
  std::string name;
  MeshSpec mesh;
};

class GradientNorm : public testing::TestWithParam<Case> {};

// Each group alone, so that none can be left out or counted twice; then together, in either order.
TEST_P(GradientNorm, IsTheClosedForm) {
  const MeshSpec& spec = GetParam().mesh;
  run_ranks(spec.world, {.timeout_s = 60}, [&](Communicator& world) {
    TestContext tc(DType::f64);
    Mesh mesh(spec, world);
    Groups groups(tc, mesh);
    const Tensor sum = tc.empty({1}, DType::f64);
    const auto expect = [&](const std::vector<FlatGroup*>& of, double expected) {
      sum_gradient_squares(*tc, mesh, of, sum);
      EXPECT_NEAR(values_of(sum)[0], expected, 1e-13 * expected) << of.size() << " groups";
    };
    const double first = Groups::of_first(), second = Groups::of_second(), experts = Groups::of_experts();
    expect({groups.first()}, first);
    expect({groups.second()}, second);
    expect({groups.experts()}, experts);
    expect({groups.bias()}, 0);
    expect({groups.first(), groups.second(), groups.experts(), groups.bias()}, first + second + experts);
    expect({groups.bias(), groups.experts(), groups.second(), groups.first()}, first + second + experts);
    // What another stage counts does not count here.
    groups.second()->mark_as_copy();
    expect({groups.first(), groups.second(), groups.experts(), groups.bias()}, first + experts);
    expect({}, 0);
  });
}

INSTANTIATE_TEST_SUITE_P(Meshes, GradientNorm,
                         testing::Values(Case{"one_rank", {}}, Case{"sharded", {.world = 2}},
                                         Case{"sharded_unevenly", {.world = 3}},
                                         Case{"replicated", {.world = 2, .dp_replicate = 2}},
                                         Case{"sharded_and_replicated", {.world = 4, .dp_replicate = 2}},
                                         Case{"experts_apart", {.world = 2, .ep = 2}},
                                         Case{"experts_apart_and_sharded", {.world = 4, .dp_replicate = 2, .ep = 2}}),
                         [](const auto& instance) { return instance.param.name; });

// Each rank of a pipeline has parameters of its own: all count.
TEST(GradientNorm, AddsTheStages) {
  run_ranks(4, {.timeout_s = 60}, [](Communicator& world) {
    TestContext tc(DType::f64);
    Mesh mesh({.world = 4, .pp = 2}, world);
    Groups groups(tc, mesh);
    const Tensor sum = tc.empty({1}, DType::f64);
    sum_gradient_squares(*tc, mesh, {groups.first(), groups.experts()}, sum);
    EXPECT_NEAR(values_of(sum)[0], 2 * (Groups::of_first() + Groups::of_experts()), 1e-13 * values_of(sum)[0]);
  });
}

// From gradients to weights: all of a step's gradients are multiplied by max_norm / (norm + 1e-6), or by 1 below it.
// Without memory (both betas 0) and with eps 1 a step is rate g / (|g| + 1).
TEST(Clipping, ScalesTheGradientsOfAllGroups) {
  const double norm = std::sqrt(Groups::of_first() + Groups::of_second() + Groups::of_experts());
  for (const int ranks : {1, 2}) {
    for (const double max_norm : {norm / 16, 2 * norm}) {
      run_ranks(ranks, {.timeout_s = 60}, [&](Communicator& world) {
        TestContext tc(DType::f64);
        HostMemory memory;
        Mesh mesh({.world = ranks}, world);
        Groups groups(tc, mesh);
        const std::vector<FlatGroup*> all = {groups.first(), groups.second(), groups.experts()};
        AdamWOptimizer optimizer(*tc, all, {.beta1 = 0, .beta2 = 0, .eps = 1}, memory);
        for (const FlatGroup* group : all) tc->run(Fill{.x = group->shard(), .value = 0});
        const Tensor sum = tc.empty({1}, DType::f64), state = step_state(tc, 0, 0.5, 99, 0, 0);
        sum_gradient_squares(*tc, mesh, all, sum);
        tc->run(ClipFactor{.state = state, .sum_squares = sum, .max_norm = max_norm});
        optimizer.step(*tc, state);
        const double clip = max_norm < norm ? max_norm / (norm + 1e-6) : 1;
        const double scale[] = {Groups::kFirst, Groups::kSecond, Groups::kExperts};
        for (size_t k = 0; k < all.size(); ++k) {
          for (const FlatGroup::Piece& piece : all[k]->pieces()) {
            const std::vector<double> values = values_of(piece.value);
            for (size_t i = 0; i < values.size(); ++i) {
              const double g = clip * scale[k] * static_cast<double>(piece.first + static_cast<int64_t>(i) + 1);
              ASSERT_NEAR(values[i], -0.5 * g / (g + 1), 1e-13) << all[k]->name() << " " << i;
            }
          }
        }
      });
    }
  }
}

}  // namespace
}  // namespace sluice::test
