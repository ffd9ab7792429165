#include "ops/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class RopeOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(RopeOps);

TEST_P(RopeOps, TableByHand) {
  TestContext tc(DType::f64, GetParam());
  const Tensor table = tc.empty({3, 4});
  tc->run(RopeTable{.cos_sin = table, .theta = 100});
  // inverse frequencies 1 and 1/10
  EXPECT_TRUE(close(table,
                    std::vector{1., 1., 0., 0., std::cos(1), std::cos(0.1), std::sin(1), std::sin(0.1), std::cos(2),
                                std::cos(0.2), std::sin(2), std::sin(0.2)},
                    tolerance(DType::f64)));
}

// Four pairs: the first as ever, the last by a quarter of its frequency, half-way between 1 and 3 both by half.
TEST_P(RopeOps, YarnSlowsPairsByParts) {
  TestContext tc(DType::f64, GetParam());
  const Tensor table = tc.empty({2, 8});
  tc->run(RopeTable{.cos_sin = table, .theta = 1e4, .scaling = {.factor = 4, .start = 1, .end = 3, .amplitude = 1.5}});
  const std::vector<double> angle{1, 0.1, 0.01 * (0.5 + 0.5 / 4), 0.001 / 4}, got = values_of(table);
  for (size_t i = 0; i < angle.size(); ++i) {
    EXPECT_DOUBLE_EQ(got[i], 1.5);
    EXPECT_NEAR(got[8 + i], 1.5 * std::cos(angle[i]), 1e-15);
    EXPECT_NEAR(got[12 + i], 1.5 * std::sin(angle[i]), 1e-15);
  }
}

// Frequencies 1, 1/10, 1/100 and 1/1000 turn 64, 6.4, 0.64 and 0.064 times within the original positions: from 8 turns
// on as ever, up to 4 by an eighth, and 6.4 between.
TEST_P(RopeOps, Llama3SlowsPairsByTurns) {
  TestContext tc(DType::f64, GetParam());
  const Tensor table = tc.empty({2, 8});
  const double original = 64 * 2 * std::numbers::pi;
  tc->run(
      RopeTable{.cos_sin = table, .theta = 1e4, .scaling = {.factor = 8, .start = 8, .end = 4, .original = original}});
  const double slow = (8 - 6.4) / (8 - 4);
  const std::vector<double> angle{1, 0.1 * ((1 - slow) + slow / 8), 0.01 / 8, 0.001 / 8}, got = values_of(table);
  for (size_t i = 0; i < angle.size(); ++i) EXPECT_NEAR(got[12 + i], std::sin(angle[i]), 1e-15) << i;
}

TEST_P(RopeOps, LinearSlowsAllPairs) {
  TestContext tc(DType::f64, GetParam());
  const Tensor table = tc.empty({2, 4});
  tc->run(RopeTable{.cos_sin = table, .theta = 100, .scaling = {.factor = 4, .start = -2, .end = -1}});
  const std::vector<double> got = values_of(table);
  EXPECT_NEAR(got[6], std::sin(0.25), 1e-15);
  EXPECT_NEAR(got[7], std::sin(0.025), 1e-15);
}

TEST_P(RopeOps, RotatesPairsAndStartsOverWithEachSequence) {
  TestContext tc(DType::f64, GetParam());
  const Tensor table = tc.empty({2, 2}), x = tc.of({4, 1, 2}, DType::f64, {1, 0, 1, 0, 0, 2, 0, 2});
  tc->run(RopeTable{.cos_sin = table, .theta = 7});
  tc->run(Rope{.x = x, .cos_sin = table});
  EXPECT_TRUE(close(x, std::vector{1., 0., std::cos(1), std::sin(1), 0., 2., -2 * std::sin(1), 2 * std::cos(1)},
                    tolerance(DType::f64)));
}

TEST_P(RopeOps, InverseUndoesAndScoresDependOnDistanceOnly) {
  TestContext tc(DType::f64, GetParam());
  constexpr int64_t kSeq = 9, kDim = 8;
  const Tensor table = tc.empty({kSeq, kDim}), x = tc.random({kSeq, 3, kDim}, 1), y = tc.copy(x);
  tc->run(RopeTable{.cos_sin = table, .theta = 1e4});
  tc->run(Rope{.x = y, .cos_sin = table});
  tc->run(Rope{.x = y, .cos_sin = table, .inverse = true});
  EXPECT_TRUE(close(y, x, tolerance(DType::f64)));
  // The same vector everywhere: <rope(s), rope(t)> is a function of t - s.
  const std::vector<double> one = random_values(kDim, 2);
  std::vector<double> all;
  for (int64_t s = 0; s < kSeq; ++s) all.insert(all.end(), one.begin(), one.end());
  const Tensor z = tc.empty({kSeq, 1, kDim});
  assign(z, all);
  tc->run(Rope{.x = z, .cos_sin = table});
  const std::vector<double> v = values_of(z);
  const auto score = [&](size_t s, size_t t) {
    double sum = 0;
    for (size_t i = 0; i < kDim; ++i) sum += v[s * kDim + i] * v[t * kDim + i];
    return sum;
  };
  EXPECT_NEAR(score(0, 3), score(5, 8), 1e-12);
  EXPECT_NEAR(score(1, 2), score(6, 7), 1e-12);
  EXPECT_GT(std::abs(score(0, 3) - score(0, 4)), 1e-6);
}

TEST_P(RopeOps, AgreesWithRef) {
  for (const DType dtype : kStorage) {
    for (const Shape& shape : {Shape{0, 2, 4}, Shape{6, 1, 2}, Shape{12, 3, 10}, Shape{600, 5, 64}}) {
      for (const bool strided : {false, true}) {
        compare(dtype, 2, [&](TestContext& tc) {
          const Tensor table = tc.empty({6, shape[2]}, tc.accumulator());
          const Tensor x = strided ? tc.strided(shape, dtype) : tc.empty(shape);
          randomize(x, 1);
          tc->run(RopeTable{.cos_sin = table, .theta = 1e4});
          tc->run(Rope{.x = x, .cos_sin = table});
          const Tensor back = tc.copy(x);
          tc->run(Rope{.x = back, .cos_sin = table, .inverse = true});
          return std::vector{table, x, back};
        });
      }
    }
  }
}

TEST(RopeGradient, IsTheInverse) {
  TestContext tc(DType::f64);
  const Shape shape{6, 2, 4};
  const Tensor x = tc.random(shape, 1);
  Tensor table;
  check_gradients(tc, {.variables = {{"x", x}},
                       .forward =
                           [&](Context& ctx) {
                             table = ctx.activations().empty({3, 4}, DType::f64);
                             const Tensor y = ctx.activations().empty(shape, DType::f64);
                             ctx.run(RopeTable{.cos_sin = table, .theta = 50});
                             ctx.run(Copy{.y = y, .x = x});
                             ctx.run(Rope{.x = y, .cos_sin = table});
                             return std::vector{y};
                           },
                       .backward =
                           [&](Context& ctx, const std::vector<Tensor>& dout) {
                             const Tensor dx = ctx.activations().empty(shape, DType::f64);
                             ctx.run(Copy{.y = dx, .x = dout[0]});
                             ctx.run(Rope{.x = dx, .cos_sin = table, .inverse = true});
                             return std::vector{dx};
                           }});
}

TEST(RopeCheck, RejectsWhatDoesNotFit) {
  TestContext tc(DType::bf16);
  const Tensor table = tc.empty({4, 6}, DType::f32), x = tc.empty({8, 2, 6});
  EXPECT_NO_THROW((Rope{.x = x, .cos_sin = table}.check()));
  EXPECT_REJECTED((Rope{.x = tc.empty({8, 2, 5}), .cos_sin = table}), "rope: the rotated dimension 5 is odd");
  EXPECT_REJECTED((Rope{.x = tc.empty({8, 2, 8}), .cos_sin = table}), "cos_sin is f32[4, 6], expected f32[4, 8]");
  EXPECT_REJECTED((Rope{.x = x, .cos_sin = tc.empty({4, 6})}), "cos_sin is bf16[4, 6], expected f32[4, 6]");
  EXPECT_REJECTED((RopeTable{.cos_sin = table, .theta = 0}), "theta is 0");
  EXPECT_REJECTED((RopeTable{.cos_sin = table, .theta = 9, .scaling = {.factor = 2, .start = 1, .end = 1}}),
                  "a factor of 2 between 1 and 1");
}

}  // namespace
}  // namespace sluice::test
