// Learning rate and weight decay at every step against the closed forms of NeMo AutoModel's scheduler (its step n of
// training has get_lr(n), counted from 0) and torch's LinearLR and CosineAnnealingLR, each written out here.
#include "optim/lr_schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numbers>
#include <vector>

namespace sluice::test {
namespace {

constexpr double kTolerance = 1e-12;
constexpr double kPi = std::numbers::pi;

void expect_rates(const LrSchedule& schedule, int64_t steps, const std::function<double(double)>& expected) {
  for (int64_t step = 0; step < steps; ++step) {
    const double want = expected(static_cast<double>(step));
    ASSERT_NEAR(schedule.at(step), want, kTolerance * std::abs(want)) << "step " << step;
  }
}

// Warm-up to 2 over 10 steps from `init`, then `left` of the way from 2 to 0.5 until step 50, then 0.5.
std::function<double(double)> warmed(double init, std::function<double(double)> left) {
  return [=](double step) {
    if (step <= 10) return init + (2 - init) * step / 10;
    return step > 50 ? 0.5 : 0.5 + 1.5 * left(step);
  };
}

LrSchedule of(LrDecay decay, WsdDecay wsd = WsdDecay::linear) {
  return {.decay = decay,
          .peak = 2,
          .minimum = 0.5,
          .warmup_steps = 10,
          .init = 0.2,
          .decay_steps = 50,
          .wsd = wsd,
          .wsd_steps = 15};
}

TEST(LrSchedule, LinearAndCosineFallFromTheEndOfWarmUpToTheMinimum) {
  expect_rates(of(LrDecay::linear), 80, warmed(0.2, [](double step) { return 1 - (step - 10) / 40; }));
  expect_rates(of(LrDecay::cosine), 80,
               warmed(0.2, [](double step) { return 0.5 * (1 + std::cos(kPi * (step - 10) / 40)); }));
}

TEST(LrSchedule, ConstantHasNoEnd) {
  expect_rates(of(LrDecay::constant), 80, [](double step) { return step <= 10 ? 0.2 + 1.8 * step / 10 : 2; });
}

TEST(LrSchedule, InverseSquareRootEndsAtTheMinimum) {
  LrSchedule schedule = of(LrDecay::inverse_square_root);
  const auto root = [](double step) { return 2 * std::sqrt(10) / std::sqrt(step); };
  expect_rates(schedule, 80, [&](double step) {
    if (step <= 10) return 0.2 + 1.8 * step / 10;
    return step > 50 ? 0.5 : std::max(0.5, root(step));
  });
  schedule.minimum = 1.5;  // which it would go below
  EXPECT_EQ(schedule.at(40), 1.5);
  schedule.warmup_steps = 0;
  schedule.minimum = 0;
  expect_rates(schedule, 50, [](double step) { return 2 / std::sqrt(std::max(step, 1.0)); });
}

TEST(LrSchedule, WsdIsFlatBeforeItsLastPhase) {
  const auto phase = [](double step) { return (step - 35) / 15; };
  const auto flat_then = [&](std::function<double(double)> shape) {
    return warmed(0.2, [=](double step) { return step <= 35 ? 1 : shape(phase(step)); });
  };
  expect_rates(of(LrDecay::wsd, WsdDecay::linear), 80, flat_then([](double u) { return 1 - u; }));
  expect_rates(of(LrDecay::wsd, WsdDecay::cosine), 80,
               flat_then([](double u) { return 0.5 * (std::cos(kPi * u) + 1); }));
  expect_rates(of(LrDecay::wsd, WsdDecay::exponential), 80,
               flat_then([](double u) { return 2 * std::pow(0.5, u) - 1; }));
  expect_rates(of(LrDecay::wsd, WsdDecay::minus_sqrt), 80, flat_then([](double u) { return 1 - std::sqrt(u); }));
}

// Without init, step s of w has (s + 1) / (w + 1) of the peak: the first step already moves, and step w is the peak.
TEST(LrSchedule, WarmUpWithoutAnInitBeginsWithAShare) {
  LrSchedule schedule{.decay = LrDecay::cosine, .peak = 3, .minimum = 0, .warmup_steps = 4, .decay_steps = 20};
  for (int64_t step = 0; step <= 4; ++step) {
    EXPECT_NEAR(schedule.at(step), 3.0 * static_cast<double>(step + 1) / 5, kTolerance);
  }
  EXPECT_LT(schedule.at(5), 3);
  schedule.init = 0;
  EXPECT_EQ(schedule.at(0), 0);
  EXPECT_NEAR(schedule.at(2), 1.5, kTolerance);
  EXPECT_EQ(schedule.at(4), 3);
}

TEST(LrSchedule, WithoutWarmUpTheFirstStepHasThePeak) {
  LrSchedule schedule = of(LrDecay::linear);
  schedule.warmup_steps = 0;
  EXPECT_EQ(schedule.at(0), 2);
  expect_rates(schedule, 51, [](double step) { return 0.5 + 1.5 * (1 - step / 50); });
}

// torch.optim.lr_scheduler: CosineAnnealingLR(T_max, eta_min) and LinearLR(start_factor 1, end_factor, total_iters).
TEST(LrSchedule, TorchsClosedForms) {
  LrSchedule schedule{.decay = LrDecay::cosine, .peak = 3e-4, .minimum = 1e-5, .decay_steps = 100};
  expect_rates(schedule, 101, [](double t) { return 1e-5 + (3e-4 - 1e-5) * (1 + std::cos(kPi * t / 100)) / 2; });
  schedule.decay = LrDecay::linear;
  const double end_factor = 1e-5 / 3e-4;
  expect_rates(schedule, 150, [&](double t) { return 3e-4 * (1 + (end_factor - 1) * std::min(t, 100.0) / 100); });
}

TEST(WeightDecaySchedule, RisesToTheEnd) {
  const auto expect = [](WeightDecayRamp ramp, const std::function<double(double)>& expected) {
    const WeightDecaySchedule schedule{.ramp = ramp, .start = 0.01, .end = 0.2, .steps = 40};
    for (int64_t step = 0; step < 60; ++step) {
      const double want = step > 40 ? 0.2 : expected(static_cast<double>(step) / 40);
      ASSERT_NEAR(schedule.at(step), want, kTolerance * want) << "step " << step;
    }
  };
  expect(WeightDecayRamp::linear, [](double t) { return 0.01 + 0.19 * t; });
  expect(WeightDecayRamp::cosine, [](double t) { return 0.01 + 0.19 * 0.5 * (std::cos(kPi * (1 - t)) + 1); });
  const WeightDecaySchedule constant{.start = 0.1, .end = 0.1, .steps = 40};
  for (const int64_t step : {0, 1, 39, 40, 41}) EXPECT_EQ(constant.at(step), 0.1);
}

}  // namespace
}  // namespace sluice::test
