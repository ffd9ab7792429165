#include "ops/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/mutation.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class OptimizerOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(OptimizerOps);

Tensor step_state(TestContext& tc, int step, double rate, double clip) {
  return tc.of({kStepSlots}, DType::f64, {rate, 1 - std::pow(0.9, step), 1 - std::pow(0.95, step), clip, 1});
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
  AdamW op{.w = w, .m = m, .v = v, .g = g, .state = step_state(tc, 1, 0.1, 0.25), .eps = 1e-8, .decay = 0.2};
  tc->run(op);
  EXPECT_TRUE(close(w, std::vector{10 - 0.1 * 0.2 * 10}, tolerance(DType::f64)));
  assign(g, {8});
  tc->run(op);
  EXPECT_TRUE(close(m, std::vector{0.1 * 0.25 * 8}, tolerance(DType::f64)));
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
                          .state = step_state(tc, step, 1e-2, 0.5),
                          .beta2 = 0.95,
                          .eps = 1e-8,
                          .decay = 0.1});
          }
          return std::vector{w};
        });
      }
    }
  }
}

TEST_P(OptimizerOps, ClipFactor) {
  TestContext tc(DType::f32, GetParam());
  const Tensor state = tc.of({kStepSlots}, DType::f64, {1, 2, 3, 4, 5}), squares = tc.of({1}, DType::f64, {16});
  tc->run(ClipFactor{.state = state, .sum_squares = squares, .max_norm = 1});
  EXPECT_TRUE(close(state, std::vector{1., 2., 3., 1 / (4 + 1e-6), 5.}, tolerance(DType::f64)));
  tc->run(ClipFactor{.state = state, .sum_squares = squares, .max_norm = 5});
  EXPECT_TRUE(holds(state, {1, 2, 3, 1, 5}));
  assign(squares, {0});
  tc->run(ClipFactor{.state = state, .sum_squares = squares, .max_norm = 0.5});
  EXPECT_TRUE(holds(state, {1, 2, 3, 1, 5}));
}

TEST(OptimizerMutations, EveryTensorMatters) {
  TestContext tc(DType::f64);
  const ObservedRun run = [&](OpObserver& observer) {
    const Tensor w = tc.random({4}, 1), g = tc.random({4}, 2), m = tc.random({4}, 3), v = tc.random({4}, 4, 0.1, 1);
    const Tensor state = step_state(tc, 2, 0.1, 1), squares = tc.of({1}, DType::f64, {5});
    tc->add_observer(&observer);
    tc->run(Sum{.sum = squares, .x = g, .squares = true});
    tc->run(ClipFactor{.state = state, .sum_squares = squares, .max_norm = 0.5});
    tc->run(AdamW{.w = w, .m = m, .v = v, .g = g, .state = state, .decay = 0.3});
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
  EXPECT_REJECTED(op, "adamw: state is f64[4], expected f64[5]");
  EXPECT_REJECTED((ClipFactor{.state = state, .sum_squares = tc.empty({1}, DType::f64), .max_norm = 0}),
                  "clip_factor: max_norm is 0");
}

}  // namespace
}  // namespace sluice::test
