#include "ops/rmsnorm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class RmsNormOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(RmsNormOps);

TEST_P(RmsNormOps, ByHand) {
  // mean(x^2) = (9 + 16) / 2 = 12.5; with eps 12.5 rstd = 1 / 5
  TestContext tc(DType::f64, GetParam());
  const Tensor x = tc.of({1, 2}, DType::f64, {3, -4}), gamma = tc.of({2}, DType::f64, {2, 10});
  const Tensor y = tc.empty({1, 2}), rstd = tc.empty({1});
  tc->run(RmsNormForward{.y = y, .rstd = rstd, .x = x, .gamma = gamma, .eps = 12.5});
  EXPECT_TRUE(close(rstd, std::vector{0.2}, tolerance(DType::f64)));
  EXPECT_TRUE(close(y, std::vector{1.2, -8.0}, tolerance(DType::f64)));
}

TEST_P(RmsNormOps, NormedRowsHaveUnitMeanSquare) {
  TestContext tc(DType::f64, GetParam());
  constexpr int64_t kRows = 5, kDim = 37;
  const Tensor x = tc.random({kRows, kDim}, 1, 1e3), gamma = tc.empty({kDim});
  assign(gamma, std::vector<double>(kDim, 1));
  const Tensor y = tc.empty({kRows, kDim}), rstd = tc.empty({kRows});
  tc->run(RmsNormForward{.y = y, .rstd = rstd, .x = x, .gamma = gamma, .eps = 0});
  const std::vector<double> values = values_of(y);
  for (size_t t = 0; t < kRows; ++t) {
    double squares = 0;
    for (size_t d = 0; d < kDim; ++d) squares += values[t * kDim + d] * values[t * kDim + d];
    EXPECT_NEAR(squares / kDim, 1, 1e-14);
  }
}

TEST_P(RmsNormOps, AgreesWithRefInEveryShapeAndDtype) {
  const Shape shapes[] = {{0, 8}, {1, 1}, {3, 7}, {700, 33}, {9, 3, 16}, {300, 2, 5}, {4, 256}};
  for (const DType dtype : kStorage) {
    for (const Shape& shape : shapes) {
      for (const bool strided : {false, true}) {
        compare(dtype, shape.inner() * shape[0], [&](TestContext& tc) {
          const int64_t dim = shape[shape.rank() - 1];
          const Shape stats = shape.rank() == 3 ? Shape{shape[0], shape[1]} : Shape{shape[0]};
          const auto make = [&](uint64_t seed) {
            const Tensor t = strided ? tc.strided(shape, dtype) : tc.empty(shape);
            if (seed > 0) randomize(t, seed);
            return t;
          };
          const Tensor x = make(1), dy = make(2), residual = make(3), y = make(0), dx = make(0), dx2 = make(0);
          const Tensor gamma = tc.random({dim}, 4, 0.3, 1), rstd = tc.empty(stats, tc.accumulator());
          const Tensor dgamma = tc.random_as(tc.accumulator(), {dim}, 5);
          tc->run(RmsNormForward{.y = y, .rstd = rstd, .x = x, .gamma = gamma, .eps = 1e-6});
          tc->run(RmsNormBackward{.dx = dx, .dgamma = dgamma, .dy = dy, .x = x, .rstd = rstd, .gamma = gamma});
          tc->run(RmsNormBackward{
              .dx = dx2, .dgamma = dgamma, .dy = dy, .x = x, .rstd = rstd, .gamma = gamma, .residual = residual});
          // A norm of one number has no gradient but rounding errors.
          return dim == 1 ? std::vector{y, rstd, dgamma, dx2} : std::vector{y, rstd, dgamma, dx2, dx};
        });
      }
    }
  }
}

TEST_P(RmsNormOps, ResidualNormIsTheNormOfTheSum) {
  for (const DType dtype : kStorage) {
    TestContext tc(dtype, GetParam());
    const Shape shape{6, 45};
    const Tensor x = tc.random(shape, 1), add = tc.random(shape, 2), gamma = tc.random({45}, 3, 0.3, 1);
    const Tensor sum = tc.empty(shape), y = tc.empty(shape), rstd = tc.empty({6}, tc.accumulator());
    tc->run(ResidualRmsNormForward{.sum = sum, .y = y, .rstd = rstd, .x = x, .add = add, .gamma = gamma, .eps = 1e-5});
    const Tensor expected_sum = tc.copy(x), expected = tc.empty(shape), expected_rstd = tc.empty({6}, tc.accumulator());
    tc->run(Add{.y = expected_sum, .x = add});
    tc->run(RmsNormForward{.y = expected, .rstd = expected_rstd, .x = expected_sum, .gamma = gamma, .eps = 1e-5});
    EXPECT_TRUE(same(sum, expected_sum));
    EXPECT_TRUE(close(y, expected, tolerance(dtype, 45)));
    EXPECT_TRUE(close(rstd, expected_rstd, tolerance(tc.accumulator(), 45)));
    // In place.
    const Tensor x_and_sum = tc.copy(x);
    tc->run(ResidualRmsNormForward{
        .sum = x_and_sum, .y = y, .rstd = rstd, .x = x_and_sum, .add = add, .gamma = gamma, .eps = 1e-5});
    EXPECT_TRUE(same(x_and_sum, expected_sum));
    EXPECT_TRUE(close(y, expected, tolerance(dtype, 45)));
  }
}

TEST_P(RmsNormOps, BackwardMayWriteOverItsInputs) {
  for (const DType dtype : kStorage) {
    TestContext tc(dtype, GetParam());
    const Shape shape{5, 33};
    const Tensor x = tc.random(shape, 1), gamma = tc.random({33}, 2, 0.3, 1), y = tc.empty(shape);
    const Tensor rstd = tc.empty({5}, tc.accumulator()), dy = tc.random(shape, 3), residual = tc.random(shape, 4);
    tc->run(RmsNormForward{.y = y, .rstd = rstd, .x = x, .gamma = gamma, .eps = 1e-6});
    const auto backward = [&](const Tensor& dx, const Tensor& upstream, const Tensor& past) {
      const Tensor dgamma = tc.random_as(tc.accumulator(), {33}, 5);
      tc->run(RmsNormBackward{
          .dx = dx, .dgamma = dgamma, .dy = upstream, .x = x, .rstd = rstd, .gamma = gamma, .residual = past});
      return dgamma;
    };
    const Tensor dx = tc.empty(shape), over_dy = tc.copy(dy), over_residual = tc.copy(residual);
    const Tensor dgamma = backward(dx, dy, residual);
    EXPECT_TRUE(same(backward(over_dy, over_dy, residual), dgamma));
    EXPECT_TRUE(same(over_dy, dx));
    EXPECT_TRUE(same(backward(over_residual, dy, over_residual), dgamma));
    EXPECT_TRUE(same(over_residual, dx));
  }
}

// norm, or norm per head, with and without the gradient that flowed past.
Program norm_program(TestContext& tc, Shape shape, bool residual, Tensor& rstd, Tensor& x_seen) {
  const int64_t dim = shape[shape.rank() - 1];
  const Tensor x = tc.random(shape, 1), gamma = tc.random({dim}, 2, 0.3, 1), dgamma = tc.empty({dim});
  Program program;
  program.variables = {{"x", x}, {"gamma", gamma, dgamma}};
  program.forward = [=, &rstd, &x_seen](Context& ctx) {
    const Tensor y = ctx.activations().empty(shape, DType::f64);
    rstd = ctx.activations().empty(shape.rank() == 3 ? Shape{shape[0], shape[1]} : Shape{shape[0]}, DType::f64);
    x_seen = x;
    ctx.run(RmsNormForward{.y = y, .rstd = rstd, .x = x, .gamma = gamma, .eps = 0.1});
    return residual ? std::vector{y, x} : std::vector{y};
  };
  program.backward = [=, &rstd, &x_seen](Context& ctx, const std::vector<Tensor>& dout) {
    const Tensor dx = ctx.scratch().empty(shape, DType::f64);
    ctx.run(RmsNormBackward{.dx = dx,
                            .dgamma = dgamma,
                            .dy = dout[0],
                            .x = x_seen,
                            .rstd = rstd,
                            .gamma = gamma,
                            .residual = residual ? dout[1] : Tensor()});
    return std::vector{dx};
  };
  return program;
}

TEST_P(RmsNormOps, Gradient) {
  for (const Shape& shape : {Shape{4, 6}, Shape{3, 2, 5}, Shape{300, 3}}) {
    for (const bool residual : {false, true}) {
      TestContext tc(DType::f64, GetParam());
      Tensor rstd, x_seen;
      const MutationReport report = check_gradients(tc, norm_program(tc, shape, residual, rstd, x_seen));
      EXPECT_TRUE(report.unused.empty()) << report.str();
    }
  }
}

TEST_P(RmsNormOps, ResidualGradient) {
  TestContext tc(DType::f64, GetParam());
  const Shape shape{4, 7};
  const Tensor x = tc.random(shape, 1), add = tc.random(shape, 2), gamma = tc.random({7}, 3, 0.3, 1);
  const Tensor dgamma = tc.empty({7});
  Tensor sum, rstd;
  const MutationReport report =
      check_gradients(tc, {.variables = {{"x", x}, {"add", add}, {"gamma", gamma, dgamma}},
                           .forward =
                               [&](Context& ctx) {
                                 sum = ctx.activations().empty(shape, DType::f64);
                                 rstd = ctx.activations().empty({4}, DType::f64);
                                 const Tensor y = ctx.activations().empty(shape, DType::f64);
                                 ctx.run(ResidualRmsNormForward{
                                     .sum = sum, .y = y, .rstd = rstd, .x = x, .add = add, .gamma = gamma, .eps = 0.1});
                                 return std::vector{y, sum};
                               },
                           .backward =
                               [&](Context& ctx, const std::vector<Tensor>& dout) {
                                 const Tensor dx = ctx.scratch().empty(shape, DType::f64);
                                 ctx.run(RmsNormBackward{.dx = dx,
                                                         .dgamma = dgamma,
                                                         .dy = dout[0],
                                                         .x = sum,
                                                         .rstd = rstd,
                                                         .gamma = gamma,
                                                         .residual = dout[1]});
                                 return std::vector{dx, dx};
                               }});
  EXPECT_TRUE(report.unused.empty()) << report.str();
}

TEST(RmsNormCheck, RejectsWhatDoesNotFit) {
  TestContext tc(DType::f32);
  const Tensor x = tc.random({4, 8}, 1), gamma = tc.random({8}, 2), y = tc.empty({4, 8}), rstd = tc.empty({4});
  const RmsNormForward good{.y = y, .rstd = rstd, .x = x, .gamma = gamma, .eps = 1e-6};
  EXPECT_NO_THROW(good.check());
  RmsNormForward op = good;
  op.gamma = tc.random({7}, 2);
  EXPECT_REJECTED(op, "rmsnorm_forward: gamma is f32[7], expected f32[8]");
  op = good;
  op.y = tc.empty({3, 8});
  EXPECT_REJECTED(op, "rmsnorm_forward: y is f32[3, 8], expected f32[4, 8]");
  op = good;
  op.rstd = tc.empty({4}, DType::f64);
  EXPECT_REJECTED(op, "rmsnorm_forward: rstd is f64[4], expected f32[4]");
  op = good;
  op.x = Tensor();
  EXPECT_REJECTED(op, "rmsnorm_forward: x is missing");
  const Tensor dgamma = tc.empty({8}), dx = tc.empty({4, 8});
  RmsNormBackward backward{.dx = dx, .dgamma = dgamma, .dy = y, .x = x, .rstd = rstd, .gamma = gamma};
  EXPECT_NO_THROW(backward.check());
  backward.residual = tc.empty({8, 4});
  EXPECT_REJECTED(backward, "residual is f32[8, 4]");
}

}  // namespace
}  // namespace sluice::test
