#include "ops/optimizer.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "support/mutation.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class OptimizerOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(OptimizerOps);

Tensor step_state(TestContext& tc, int step, double rate, double clip, double decay = 0) {
  return tc.of({kStepSlots}, DType::f64,
               {rate, 1 - std::pow(0.9, step), 1 - std::pow(0.95, step), clip, 1, 1, static_cast<double>(step), decay});
}

// The first step moves each weight by the rate against its gradient's sign, whatever the gradient's size.
TEST_P(OptimizerOps, FirstStepIsTheSign) {
  TestContext tc(DType::f64, GetParam());
  const Tensor w = tc.of({3}, DType::f64, {1, 2, 3}), g = tc.of({3}, DType::f64, {1e-3, -50, 7});
  const Tensor m = tc.of({3}, DType::f64, {0, 0, 0}), v = tc.copy(m);
  AdamW op{.w = w, .m = m, .v = v, .g = g, .state = step_state(tc, 1, 0.1, 1), .beta2 = 0.95, .eps = 0};
  tc->run(op);
  EXPECT_TRUE(close(w, std::vector{0.9, 2.1, 2.9}, tolerance(DType::f64)));
  EXPECT_TRUE(close(m, std::vector{1e-4, -5., 0.7}, tolerance(DType::f64)));
  EXPECT_TRUE(close(v, std::vector{0.05e-6, 125., 2.45}, tolerance(DType::f64)));
}

TEST_P(OptimizerOps, DecayIsApartFromTheGradientAndClippingScalesIt) {
  TestContext tc(DType::f64, GetParam());
  const Tensor w = tc.of({1}, DType::f64, {10}), g = tc.of({1}, DType::f64, {0});
  const Tensor m = tc.of({1}, DType::f64, {0}), v = tc.of({1}, DType::f64, {0});
  AdamW op{.w = w, .m = m, .v = v, .g = g, .state = step_state(tc, 1, 0.1, 0.25, 0.2), .eps = 1e-8};
  tc->run(op);
  EXPECT_TRUE(close(w, std::vector{10 - 0.1 * 0.2 * 10}, tolerance(DType::f64)));
  assign(g, {8});
  tc->run(op);
  EXPECT_TRUE(close(m, std::vector{0.1 * 0.25 * 8}, tolerance(DType::f64)));
}

// Two steps of Adam by hand: the decay is a part of the gradient, behind clipping, and goes into both moments.
TEST_P(OptimizerOps, CoupledDecayIsPartOfTheGradient) {
  TestContext tc(DType::f64, GetParam());
  const Tensor w = tc.of({2}, DType::f64, {10, -3}), g = tc.of({2}, DType::f64, {8, 0.5});
  const Tensor m = tc.of({2}, DType::f64, {0, 0}), v = tc.copy(m);
  std::vector<double> weight{10, -3}, first{0, 0}, second{0, 0};
  for (int step = 1; step <= 2; ++step) {
    tc->run(AdamW{.w = w,
                  .m = m,
                  .v = v,
                  .g = g,
                  .state = step_state(tc, step, 0.1, 0.25, 0.2),
                  .beta2 = 0.95,
                  .eps = 1e-3,
                  .coupled_decay = true});
    for (size_t i = 0; i < 2; ++i) {
      const double gradient = (i == 0 ? 8 : 0.5) * 0.25 + 0.2 * weight[i];
      first[i] = 0.9 * first[i] + 0.1 * gradient;
      second[i] = 0.95 * second[i] + 0.05 * gradient * gradient;
      weight[i] -=
          0.1 * (first[i] / (1 - std::pow(0.9, step))) / (std::sqrt(second[i] / (1 - std::pow(0.95, step))) + 1e-3);
    }
    EXPECT_TRUE(close(w, weight, tolerance(DType::f64)));
    EXPECT_TRUE(close(m, first, tolerance(DType::f64)));
    EXPECT_TRUE(close(v, second, tolerance(DType::f64)));
  }
}

// A scale of the rate moves the decay too, as a group's own rate does in torch.
TEST_P(OptimizerOps, ScalesMultiplyRateAndDecay) {
  for (const bool coupled : {false, true}) {
    TestContext tc(DType::f64, GetParam());
    const auto stepped = [&](double rate, double decay, double lr_scale, double decay_scale) {
      const Tensor w = tc.of({2}, DType::f64, {10, -3}), g = tc.of({2}, DType::f64, {8, 0.5});
      const Tensor m = tc.of({2}, DType::f64, {1, 2}), v = tc.of({2}, DType::f64, {3, 4});
      tc->run(AdamW{.w = w,
                    .m = m,
                    .v = v,
                    .g = g,
                    .state = step_state(tc, 3, rate, 1, decay),
                    .lr_scale = lr_scale,
                    .decay_scale = decay_scale,
                    .coupled_decay = coupled});
      return w;
    };
    const std::vector<double> plain = values_of(stepped(0.1, 0.2, 1, 1));
    EXPECT_TRUE(close(stepped(0.4, 0.05, 0.25, 4), plain, tolerance(DType::f64)));
    EXPECT_NE(values_of(stepped(0.4, 0.2, 1, 1)), plain);
    EXPECT_NE(values_of(stepped(0.1, 0.2, 1, 0)), plain);
  }
}

TEST_P(OptimizerOps, AgreesWithRefOverManySteps) {
  for (const DType dtype : kStorage) {
    for (const DType state_dtype : {DType::f32, DType::bf16}) {
      for (const int64_t size : {0, 1, 1000}) {
        compare(dtype, 64, [&](TestContext& tc) {
          const Tensor w = tc.random({size}, 1), g = tc.random_as(tc.accumulator(), {size}, 2);
          const Tensor m = tc.random_as(state_dtype, {size}, 3, 0), v = tc.random_as(state_dtype, {size}, 3, 0);
          for (int step = 1; step <= 5; ++step) {
            tc->run(AdamW{.w = w,
                          .m = m,
                          .v = v,
                          .g = g,
                          .state = step_state(tc, step, 1e-2, 0.5, 0.1),
                          .beta2 = 0.95,
                          .eps = 1e-8,
                          .lr_scale = 0.5,
                          .decay_scale = 3,
                          .coupled_decay = step % 2 == 0});
          }
          return std::vector{w};
        });
      }
    }
  }
}

TEST_P(OptimizerOps, AMasterTakesTheStepAndTheWeightIsItsRounding) {
  for (const DType state_dtype : {DType::f32, DType::bf16}) {
    for (const int64_t size : {1, 1000}) {
      compare(DType::bf16, 64, [&](TestContext& tc) {
        const Tensor w = tc.empty({size}), master = tc.random_as(DType::f32, {size}, 1);
        const Tensor g = tc.random_as(DType::f32, {size}, 2), m = tc.random_as(state_dtype, {size}, 3, 0);
        const Tensor v = tc.copy(m);
        const std::vector<double> before = values_of(master);
        for (int step = 1; step <= 5; ++step) {
          tc->run(AdamW{
              .w = w, .master = master, .m = m, .v = v, .g = g, .state = step_state(tc, step, 1e-4, 1), .beta2 = 0.95});
        }
        EXPECT_NE(values_of(master), before);
        const Tensor rounded = tc.empty({size});
        assign(rounded, values_of(master));
        EXPECT_TRUE(same(w, rounded));
        return std::vector{master, m, v};
      });
    }
  }
}

// --- stochastic rounding ----------------------------------------------------------------------------------------

// Of all draws, as many go up as x is 65536ths of the way to the next number.
TEST(StochasticRounding, IsExactOverAllDraws) {
  for (const float x : {1.0F, 1.001F, -1.001F, 3.1415926F, 1e-30F, -7e30F, 1e-40F, 0.0F}) {
    const auto bits = std::bit_cast<uint32_t>(x);
    uint32_t up = 0;
    for (uint32_t random = 0; random < 65536; ++random) {
      const bool high = random % 2 == 1;  // either half of a word serves
      const Philox::Block block{0, high ? random << 16 : random, 0, 0};
      const uint32_t got = round_stochastically(x, block, high ? 3 : 2).bits;
      ASSERT_TRUE(got == bits >> 16 || got == (bits >> 16) + 1) << x;
      up += got - (bits >> 16);
    }
    EXPECT_EQ(up, bits & 0xffffU) << x;
  }
}

TEST(StochasticRounding, LetsInfinitiesAndNansPass) {
  const Philox::Block ones{~0U, ~0U, ~0U, ~0U};
  const auto rounded = [&](float x) { return static_cast<float>(round_stochastically(x, ones, 5)); };
  EXPECT_EQ(rounded(INFINITY), INFINITY);
  EXPECT_EQ(rounded(-INFINITY), -INFINITY);
  EXPECT_TRUE(std::isnan(rounded(std::bit_cast<float>(0x7f800001U))));
  EXPECT_TRUE(std::isnan(rounded(std::bit_cast<float>(0xffffffffU))));
}

// A step whose arithmetic is exact in f32, so that devices may only differ in the rounding: betas are 1/2, gradients
// powers of two, and weights have so few bits that w (1 - 2^-9) -+ 2^-12 is an f32.
struct ExactStep {
  int64_t step = 3;
  uint64_t key = 77;

  static Tensor weights(TestContext& tc, int64_t size) {
    const Tensor w = tc.empty({size});
    std::vector<double> values = random_values(size, 5, 1);
    for (double& x : values) x = std::copysign(0.0625 + 0.9 * std::abs(x), x);
    assign(w, values);
    return w;
  }
  void run(TestContext& tc, const Tensor& w, int64_t first) const {
    const int64_t size = w.dim(0);
    const Tensor g = tc.empty({size}, DType::f32), m = tc.empty({size}, DType::f32);
    std::vector<double> signs(static_cast<size_t>(size));
    for (size_t i = 0; i < signs.size(); ++i) signs[i] = (first + static_cast<int64_t>(i)) % 3 == 0 ? -4 : 0.125;
    assign(g, signs);
    assign(m, std::vector<double>(signs.size(), 0));
    const Tensor state = tc.of({kStepSlots}, DType::f64, {0x1p-12, 0.5, 0.5, 1, 1, 1, static_cast<double>(step), 8});
    tc->run(AdamW{.w = w,
                  .m = m,
                  .v = tc.copy(m),
                  .g = g,
                  .state = state,
                  .beta1 = 0.5,
                  .beta2 = 0.5,
                  .eps = 0,
                  .stochastic_rounding = true,
                  .key = key,
                  .first = first});
  }
};

TEST_P(OptimizerOps, RoundsAtRandomTheSameOnAllDevices) {
  // The last is more than a thread takes at a time.
  for (const int64_t size : {1, 8, 1000, 1003, 9003}) {
    for (const int64_t first : {int64_t{0}, int64_t{5}, int64_t{1} << 40}) {
      TestContext expected(DType::bf16), got(DType::bf16, GetParam());
      const Tensor before = ExactStep::weights(expected, size), w = ExactStep::weights(expected, size);
      const Tensor mine = ExactStep::weights(got, size);
      ExactStep{}.run(expected, w, first);
      ExactStep{}.run(got, mine, first);
      EXPECT_TRUE(same(mine, w)) << size << " from " << first;
      if (size > 1) {
        EXPECT_FALSE(same(w, before));
      }
    }
  }
}

TEST_P(OptimizerOps, RoundingDoesNotDependOnTheShard) {
  constexpr int64_t kSize = 1003;
  TestContext tc(DType::bf16, GetParam());
  const Tensor whole = ExactStep::weights(tc, kSize), parts = ExactStep::weights(tc, kSize);
  ExactStep{}.run(tc, whole, 64);
  int64_t begin = 0;
  for (const int64_t count : {1, 7, 8, 484, 503}) {
    ExactStep{}.run(tc, parts.rows(begin, count), 64 + begin);
    begin += count;
  }
  ASSERT_EQ(begin, kSize);
  EXPECT_TRUE(same(parts, whole));
  // Another step or key draws other bits.
  for (const ExactStep& other : {ExactStep{.step = 4}, ExactStep{.key = 78}}) {
    const Tensor w = ExactStep::weights(tc, kSize);
    other.run(tc, w, 64);
    EXPECT_FALSE(same(w, whole));
  }
}

TEST_P(OptimizerOps, RoundingIsUnbiased) {
  TestContext tc(DType::bf16, GetParam());
  constexpr int64_t kSize = 4096;
  constexpr double kRate = 0x1.8p-11, kUlp = 0x1p-7;  // 1 + rate is 3/32 of the way to the next bf16
  const Tensor w = tc.empty({kSize}), g = tc.empty({kSize}, DType::f32), m = tc.random_as(DType::f32, {kSize}, 3, 0);
  assign(w, std::vector<double>(kSize, 1));
  assign(g, std::vector<double>(kSize, -1));
  tc->run(AdamW{.w = w,
                .m = m,
                .v = tc.copy(m),
                .g = g,
                .state = tc.of({kStepSlots}, DType::f64, {kRate, 0.5, 0.5, 1, 1, 1, 0, 0}),
                .beta1 = 0.5,
                .beta2 = 0.5,
                .eps = 0,
                .stochastic_rounding = true,
                .key = 5});
  double sum = 0;
  for (const double x : values_of(w)) {
    EXPECT_TRUE(x == 1 || x == 1 + kUlp) << x;
    sum += x;
  }
  const double share = kRate / kUlp, deviation = kUlp * std::sqrt(share * (1 - share));
  EXPECT_NEAR(sum / kSize, 1 + kRate, mean_tolerance(deviation, kSize));
}

TEST_P(OptimizerOps, ClipFactor) {
  TestContext tc(DType::f32, GetParam());
  const Tensor state = tc.of({kStepSlots}, DType::f64, {1, 2, 3, 4, 5, 6, 7, 8}),
               squares = tc.of({1}, DType::f64, {16});
  tc->run(ClipFactor{.state = state, .sum_squares = squares, .max_norm = 1});
  EXPECT_TRUE(close(state, std::vector{1., 2., 3., 1 / (4 + 1e-6), 5., 6., 7., 8.}, tolerance(DType::f64)));
  tc->run(ClipFactor{.state = state, .sum_squares = squares, .max_norm = 5});
  EXPECT_TRUE(holds(state, {1, 2, 3, 1, 5, 6, 7, 8}));
  assign(squares, {0});
  tc->run(ClipFactor{.state = state, .sum_squares = squares, .max_norm = 0.5});
  EXPECT_TRUE(holds(state, {1, 2, 3, 1, 5, 6, 7, 8}));
}

TEST(OptimizerMutations, EveryTensorMatters) {
  TestContext tc(DType::f64);
  const ObservedRun run = [&](OpObserver& observer) {
    const Tensor w = tc.random({4}, 1), g = tc.random({4}, 2), m = tc.random({4}, 3), v = tc.random({4}, 4, 0.1, 1);
    const Tensor state = step_state(tc, 2, 0.1, 1, 0.3), squares = tc.of({1}, DType::f64, {5});
    tc->add_observer(&observer);
    tc->run(Sum{.sum = squares, .x = g, .squares = true});
    tc->run(ClipFactor{.state = state, .sum_squares = squares, .max_norm = 0.5});
    tc->run(AdamW{.w = w, .m = m, .v = v, .g = g, .state = state});
    tc->remove_observer(&observer);
    return std::vector<Result>{{"w", values_of(w), w}, {"m", values_of(m), m}, {"v", values_of(v), v}};
  };
  expect_no_survivors(run);
}

TEST(OptimizerCheck, RejectsWhatDoesNotFit) {
  TestContext tc(DType::bf16);
  const Tensor w = tc.empty({4}), g = tc.empty({4}, DType::f32), m = tc.empty({4}, DType::f32);
  const Tensor state = tc.empty({kStepSlots}, DType::f64);
  const AdamW good{.w = w, .m = m, .v = m, .g = g, .state = state};
  EXPECT_NO_THROW(good.check());
  AdamW op = good;
  op.g = w;
  EXPECT_REJECTED(op, "adamw: g is bf16[4], expected f32[4]");
  op = good;
  op.v = w;
  EXPECT_REJECTED(op, "adamw: v is bf16[4], expected f32[4]");
  op = good;
  op.state = tc.empty({4}, DType::f64);
  EXPECT_REJECTED(op, "adamw: state is f64[4], expected f64[8]");
  op = good;
  op.master = w;
  EXPECT_REJECTED(op, "adamw: master is bf16[4], expected f32[4]");
  op.master = m;
  EXPECT_NO_THROW(op.check());
  op.stochastic_rounding = true;
  EXPECT_REJECTED(op, "adamw: a master for bf16[4] with stochastic rounding");
  op = good;
  op.lr_scale = -1;
  EXPECT_REJECTED(op, "adamw: lr_scale -1 and decay_scale 1");
  op = good;
  op.first = -1;
  EXPECT_REJECTED(op, "adamw: first is -1");
  EXPECT_REJECTED((ClipFactor{.state = state, .sum_squares = tc.empty({1}, DType::f64), .max_norm = 0}),
                  "clip_factor: max_norm is 0");
}

}  // namespace
}  // namespace sluice::test
