#include "nn/embedding.h"

#include <gtest/gtest.h>

#include "module.h"

namespace sluice::test {
namespace {

TEST(EmbeddingModule, Gradients) {
  TestContext tc(DType::f64);
  Embedding embedding("embedding", 5, 3, 0.02);
  const Tensor tokens = tc.ints({6}, {4, 1, 4, 0, 3, 4});  // one repeated, one never seen
  Program program{.variables = bind_parameters(tc, embedding)};
  program.forward = [&](Context& ctx) {
    const Tensor y = ctx.activations().empty({6, 3}, DType::f64);
    embedding.forward(ctx, y, tokens);
    return std::vector{y};
  };
  program.backward = [&](Context& ctx, const std::vector<Tensor>& dout) {
    embedding.backward(ctx, dout[0], tokens);
    return std::vector<Tensor>{};
  };
  const MutationReport report = check_gradients(tc, program);
  EXPECT_EQ(report.ops, 2);
  EXPECT_TRUE(report.unused.empty()) << report.str();
}

// The head computes gradients of sum(loss) * grad_scale in its forward, so the output's gradient is grad_scale.
TEST(HeadModule, Gradients) {
  TestContext tc(DType::f64);
  constexpr double kScale = 0.37;
  constexpr int64_t kTokens = 5, kHidden = 7;
  Head head(6, kHidden, 1e-3, 0.02);
  const Tensor x = tc.random({kTokens, kHidden}, 1), labels = tc.ints({kTokens}, {2, 1, 0, 5, kIgnoredLabel});
  const Tensor grad_scale = tc.of({1}, DType::f64, {kScale});
  Program program{.variables = bind_parameters(tc, head)};
  program.variables.push_back({"x", x});
  Tensor dx;
  program.forward = [&](Context& ctx) {
    const Tensor loss = ctx.activations().empty({kTokens}, DType::f64);
    dx = ctx.activations().empty_like(x);
    const Tensor normed = ctx.scratch().empty_like(x), rstd = ctx.scratch().empty({kTokens}, DType::f64);
    head.forward(ctx, loss, dx, normed, rstd, x, labels, grad_scale);
    return std::vector{loss};
  };
  program.backward = [&](Context&, const std::vector<Tensor>&) { return std::vector{dx}; };
  program.output_gradient = [&](size_t, const Shape& shape) {
    return std::vector<double>(static_cast<size_t>(shape.numel()), kScale);
  };
  const MutationReport report = check_gradients(tc, program);
  EXPECT_EQ(report.ops, 3);
  EXPECT_TRUE(report.unused.empty()) << report.str();
}

// Without gradients the head leaves its gradient buffers alone and has the same losses.
TEST(HeadModule, EvaluationHasTheSameLosses) {
  TestContext tc(DType::f64);
  Head head(6, 7, 1e-3, 0.02);
  const Tensor x = tc.random({5, 7}, 1), labels = tc.ints({5}, {2, 1, 0, 5, kIgnoredLabel});
  const Tensor grad_scale = tc.of({1}, DType::f64, {1}), dx = tc.empty({5, 7});
  const Tensor trained = tc.empty({5}), evaluated = tc.empty({5}), normed = tc.empty({5, 7}), rstd = tc.empty({5});
  const std::vector<Variable> parameters = bind_parameters(tc, head);
  for (const Variable& p : parameters) randomize(p.gradient, 3);
  head.forward(*tc, evaluated, Tensor(), normed, rstd, x, labels, grad_scale);
  for (const Variable& p : parameters) EXPECT_EQ(values_of(p.gradient), random_values(p.gradient.numel(), 3));
  head.forward(*tc, trained, dx, normed, rstd, x, labels, grad_scale);
  EXPECT_EQ(values_of(trained), values_of(evaluated));
  EXPECT_EQ(values_of(trained)[4], 0);
}

}  // namespace
}  // namespace sluice::test
