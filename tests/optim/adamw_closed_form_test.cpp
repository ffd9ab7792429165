// AdamW's moments, their corrections and its decay against closed forms.
#include <gtest/gtest.h>

#include <cmath>

#include "comm/inproc/inproc.h"
#include "optim/adamw.h"
#include "rig.h"
#include "support/compare.h"

namespace sluice::test {
namespace {

// With the same gradient g in every step both moments, corrected, are g and g^2 however many steps there were: each
// step is rate g / (|g| + eps), and decay multiplies by 1 - rate decay apart from it.
TEST(AdamWClosedForm, OfTheSameGradientInEveryStep) {
  constexpr double kRate = 0.25, kEps = 0.5, kDecay = 0.125;
  run_ranks(2, {.timeout_s = 60}, [&](Communicator& world) {
    TestContext tc(DType::f64);
    HostMemory memory;
    Mesh mesh({.world = 2}, world);
    OneParam param(tc, mesh, {.name = "w", .shape = {130}});
    const auto gradient = [](int64_t i) { return 0.01 * static_cast<double>(i - 65); };
    AdamWOptimizer optimizer(*tc, {&param.group()}, {.beta1 = 0.8, .beta2 = 0.95, .eps = kEps}, memory);
    std::vector<double> expected = param.gathered();
    for (int step = 0; step < 12; ++step) {
      param.reduce(gradient);
      optimizer.step(*tc, step_state(tc, step, kRate, 1, 0.8, 0.95, kDecay));
      for (size_t i = 0; i < expected.size(); ++i) {
        const double g = gradient(static_cast<int64_t>(i));
        expected[i] -= kRate * (g / (std::abs(g) + kEps) + kDecay * expected[i]);
      }
      ASSERT_TRUE(close(param.gathered(), expected, {1e-13, HUGE_VAL})) << "step " << step;
    }
  });
}

// The moments remember: gradients 1, then 0. With betas b1 and b2 the second step is
// b1 (1 - b1) / (1 - b1^2) / sqrt(b2 (1 - b2) / (1 - b2^2)) = b1 / (1 + b1) / sqrt(b2 / (1 + b2)).
TEST(AdamWClosedForm, OfAGradientThatEnds) {
  run_ranks(1, {.timeout_s = 60}, [&](Communicator& world) {
    TestContext tc(DType::f64);
    HostMemory memory;
    Mesh mesh({}, world);
    OneParam param(tc, mesh, {.name = "w", .shape = {3}, .init = InitKind::zeros});
    AdamWOptimizer optimizer(*tc, {&param.group()}, {.beta1 = 0.75, .beta2 = 0.9, .eps = 1e-300}, memory);
    param.reduce([](int64_t i) { return i == 1 ? -4.0 : 1.0; });
    optimizer.step(*tc, step_state(tc, 0, 1, 1, 0.75, 0.9));
    EXPECT_TRUE(close(param.gathered(), std::vector{-1.0, 1.0, -1.0}, {1e-15, 1e-15}));
    param.reduce([](int64_t) { return 0.0; });
    optimizer.step(*tc, step_state(tc, 1, 1, 1, 0.75, 0.9));
    const double second = 0.75 / 1.75 / std::sqrt(0.9 / 1.9);
    EXPECT_TRUE(close(param.gathered(), std::vector{-1 - second, 1 + second, -1 - second}, {1e-14, 1e-14}));
  });
}

}  // namespace
}  // namespace sluice::test
