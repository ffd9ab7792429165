#include "nn/rmsnorm.h"

#include <gtest/gtest.h>

#include "module.h"

namespace sluice::test {
namespace {

// Of a row, and of each head of some columns of a wider matrix.
TEST(RmsNormModule, OfARowAndOfEachHead) {
  for (const Shape& shape : {Shape{4, 7}, Shape{3, 2, 5}}) {
    SCOPED_TRACE(shape.str());
    TestContext tc(DType::f64);
    RmsNorm norm("norm", shape[shape.rank() - 1], 1e-3);
    Program program{.variables = bind_parameters(tc, norm)};
    const Tensor x = tc.strided(shape, DType::f64);
    randomize(x, 1);
    program.variables.push_back({"x", x});
    Tensor rstd;
    program.forward = [&](Context& ctx) {
      const Tensor y = ctx.activations().empty(shape, DType::f64);
      rstd = ctx.activations().empty(shape.rank() == 3 ? Shape{shape[0], shape[1]} : Shape{shape[0]}, DType::f64);
      norm.forward(ctx, y, rstd, x);
      return std::vector{y};
    };
    program.backward = [&](Context& ctx, const std::vector<Tensor>& dout) {
      const Tensor dx = ctx.scratch().empty(shape, DType::f64);
      norm.backward(ctx, dx, dout[0], x, rstd);
      return std::vector{dx};
    };
    const MutationReport report = check_gradients(tc, program);
    EXPECT_EQ(report.ops, 2);
    EXPECT_TRUE(report.unused.empty()) << report.str();
  }
}

TEST(RmsNormModule, AfterAddingToTheResidualStream) {
  TestContext tc(DType::f64);
  const Shape shape{5, 3};
  RmsNorm norm("norm", 3, 1e-3);
  Program program{.variables = bind_parameters(tc, norm)};
  const Tensor x = tc.random(shape, 1), add = tc.random(shape, 2);
  program.variables.push_back({"x", x});
  program.variables.push_back({"add", add});
  Tensor sum, rstd;
  program.forward = [&](Context& ctx) {
    sum = ctx.activations().empty(shape, DType::f64);
    rstd = ctx.activations().empty({5}, DType::f64);
    const Tensor y = ctx.activations().empty(shape, DType::f64);
    norm.forward_residual(ctx, sum, y, rstd, x, add);
    return std::vector{sum, y};
  };
  program.backward = [&](Context& ctx, const std::vector<Tensor>& dout) {
    const Tensor dx = ctx.scratch().empty(shape, DType::f64);
    norm.backward(ctx, dx, dout[1], sum, rstd, dout[0]);
    return std::vector{dx, dx};
  };
  const MutationReport report = check_gradients(tc, program);
  EXPECT_EQ(report.ops, 2);
  EXPECT_TRUE(report.unused.empty()) << report.str();
}

}  // namespace
}  // namespace sluice::test
