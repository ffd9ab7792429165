#include "nn/linear.h"

#include <gtest/gtest.h>

#include "module.h"

namespace sluice::test {
namespace {

TEST(LinearModule, InputAndWeightGradients) {
  TestContext tc(DType::f64);
  Linear linear("linear", 5, 3, 0.02);
  Program program{.variables = bind_parameters(tc, linear)};
  const Tensor x = tc.random({7, 5}, 1);
  program.variables.push_back({"x", x});
  program.forward = [&](Context& ctx) { return std::vector{linear.forward(ctx, x, ctx.activations())}; };
  program.backward = [&](Context& ctx, const std::vector<Tensor>& dout) {
    const Tensor dx = ctx.scratch().empty_like(x);
    linear.input_grad(ctx, dx, dout[0]);
    linear.weight_grad(ctx, x, dout[0]);
    return std::vector{dx};
  };
  const MutationReport report = check_gradients(tc, program);
  EXPECT_EQ(report.ops, 3);
  EXPECT_TRUE(report.unused.empty()) << report.str();
}

TEST(LinearModule, BiasGradients) {
  TestContext tc(DType::f64);
  Linear linear("linear", 5, 3, 0.02, /*bias=*/true);
  Program program{.variables = bind_parameters(tc, linear)};
  ASSERT_EQ(program.variables.size(), 2U);
  const Tensor x = tc.random({7, 5}, 1);
  program.variables.push_back({"x", x});
  program.forward = [&](Context& ctx) { return std::vector{linear.forward(ctx, x, ctx.activations())}; };
  program.backward = [&](Context& ctx, const std::vector<Tensor>& dout) {
    const Tensor dx = ctx.scratch().empty_like(x);
    linear.input_grad(ctx, dx, dout[0]);
    linear.weight_grad(ctx, x, dout[0]);
    return std::vector{dx};
  };
  const MutationReport report = check_gradients(tc, program);
  EXPECT_EQ(report.ops, 5);
  EXPECT_TRUE(report.unused.empty()) << report.str();
}

// A bf16 bias on an output in the accumulator type, as of a router's logits.
TEST(LinearModule, BiasIsWidenedToTheOutput) {
  TestContext tc(DType::bf16);
  Linear linear("linear", 2, 3, 0.02, /*bias=*/true);
  bind_parameters(tc, linear);
  Param* bias = nullptr;
  linear.visit([&](Param& param) { bias = &param; });
  const Tensor x = tc.empty({1, 2}), y = tc.empty({1, 3}, DType::f32);
  tc->run(Fill{.x = x, .value = 0});
  linear.forward(*tc, y, x);
  EXPECT_EQ(values_of(y), values_of(bias->value));
}

TEST(LinearModule, AddsToTheInputGradientWhereTold) {
  TestContext tc(DType::f64);
  Linear linear("linear", 3, 5, 0.02);
  Program program{.variables = bind_parameters(tc, linear)};
  const Tensor x = tc.random({4, 3}, 1), dx = tc.empty({4, 3});
  program.variables.push_back({"x", x, dx});
  program.forward = [&](Context& ctx) { return std::vector{linear.forward(ctx, x, ctx.activations())}; };
  program.backward = [&](Context& ctx, const std::vector<Tensor>& dout) {
    linear.input_grad(ctx, dx, dout[0], /*accumulate=*/true);
    linear.weight_grad(ctx, x, dout[0]);
    return std::vector<Tensor>{};
  };
  const MutationReport report = check_gradients(tc, program);
  EXPECT_TRUE(report.unused.empty()) << report.str();
}

}  // namespace
}  // namespace sluice::test
