#include "ops/sigmoid_router.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class SigmoidRouterOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(SigmoidRouterOps);

double logit(double p) {
  return std::log(p / (1 - p));
}

struct Routed {
  Tensor experts, weights, scores;
};

Routed route(TestContext& tc, const Tensor& logits, const Tensor& bias, int64_t top_k, const SigmoidRouterSpec& spec) {
  const Routed r{tc.empty({logits.dim(0), top_k}, DType::i32), tc.empty({logits.dim(0), top_k}, logits.dtype()),
                 tc.empty(logits.shape(), logits.dtype())};
  tc->run(SigmoidTopKForward{
      .experts = r.experts, .weights = r.weights, .scores = r.scores, .logits = logits, .bias = bias, .spec = spec});
  return r;
}

// The bias moves the choice, the weights are the scores without it.
TEST_P(SigmoidRouterOps, TheBiasSteersTheChoiceAlone) {
  TestContext tc(DType::f64, GetParam());
  const Tensor logits = tc.of({1, 4}, DType::f64, {logit(0.2), logit(0.4), logit(0.6), logit(0.1)});
  const Tensor bias = tc.of({4}, DType::f64, {0.5, 0, -0.1, 0});
  const Routed r = route(tc, logits, bias, 2, {.scale = 2.5});
  EXPECT_TRUE(holds(r.experts, {0, 2}));  // 0.7, 0.5; then 0.4, 0.1
  EXPECT_TRUE(close(r.weights, std::vector{2.5 * 0.2 / 0.8, 2.5 * 0.6 / 0.8}, tolerance(DType::f64, 8)));
  const Routed plain = route(tc, logits, bias, 2, {.normalize = false, .scale = 2});
  EXPECT_TRUE(close(plain.weights, std::vector{0.4, 1.2}, tolerance(DType::f64, 8)));
}

// Groups of two count by both their choices: (0.9, 0.1) = 1, (0.6, 0.55) = 1.15, (0.5, 0.45) = 0.95.
TEST_P(SigmoidRouterOps, OnlyTheBestGroupsAreUsed) {
  TestContext tc(DType::f64, GetParam());
  const Tensor logits =
      tc.of({1, 6}, DType::f64, {logit(0.9), logit(0.1), logit(0.6), logit(0.55), logit(0.5), logit(0.45)});
  const Tensor bias = tc.of({6}, DType::f64, {0, 0, 0, 0, 0, 0});
  EXPECT_TRUE(holds(route(tc, logits, bias, 2, {.groups = 3, .top_groups = 1}).experts, {2, 3}));
  EXPECT_TRUE(holds(route(tc, logits, bias, 3, {.groups = 3, .top_groups = 2}).experts, {0, 2, 3}));
}

// Choices below zero still beat groups that are out.
TEST_P(SigmoidRouterOps, NegativeChoicesBeatExcludedGroups) {
  TestContext tc(DType::f64, GetParam());
  const Tensor logits = tc.of({1, 4}, DType::f64, {0, 0, 0, 0}), bias = tc.of({4}, DType::f64, {-1, -2, -3, 2});
  EXPECT_TRUE(holds(route(tc, logits, bias, 2, {.groups = 2, .top_groups = 1}).experts, {3, 2}));
}

TEST_P(SigmoidRouterOps, TiesGoToTheLowerIndex) {
  TestContext tc(DType::f32, GetParam());
  const Tensor logits = tc.of({1, 8}, DType::f32, {1, 1, 1, 1, 1, 1, 1, 1});
  const Tensor bias = tc.of({8}, DType::f32, {0, 0, 0, 0, 0, 0, 0, 0});
  EXPECT_TRUE(holds(route(tc, logits, bias, 3, {.groups = 4, .top_groups = 2}).experts, {0, 1, 2}));
}

TEST_P(SigmoidRouterOps, AgreesWithRef) {
  struct Case {
    int64_t tokens, experts, top_k, groups, top_groups;
  };
  for (const DType dtype : {DType::f64, DType::f32}) {
    for (const Case& c : {Case{0, 4, 2, 1, 1}, Case{3, 1, 1, 1, 1}, Case{70, 16, 4, 4, 2}, Case{33, 256, 8, 8, 4},
                          Case{9, 384, 8, 1, 1}, Case{20, 40, 3, 5, 5}}) {
      compare(dtype, c.top_k + 4, [&](TestContext& tc) {
        const Tensor logits = tc.random({c.tokens, c.experts}, 1, 2), bias = tc.random({c.experts}, 2, 0.3);
        const SigmoidRouterSpec spec{.groups = c.groups, .top_groups = c.top_groups, .scale = 2.5};
        const Routed r = route(tc, logits, bias, c.top_k, spec);
        const Tensor dweights = tc.random(r.weights.shape(), 3), dlogits = tc.empty(logits.shape());
        tc->run(SigmoidTopKBackward{.dlogits = dlogits,
                                    .dweights = dweights,
                                    .experts = r.experts,
                                    .weights = r.weights,
                                    .scores = r.scores,
                                    .spec = spec});
        return std::vector{r.experts, r.weights, r.scores, dlogits};
      });
    }
  }
}

TEST(SigmoidRouterGradient, OfTheLogits) {
  for (const bool normalize : {true, false}) {
    TestContext tc(DType::f64);
    const Tensor logits = tc.random({3, 6}, 1, 2), bias = tc.random({6}, 2, 0.3);
    const SigmoidRouterSpec spec{.groups = 3, .top_groups = 2, .normalize = normalize, .scale = 1.7};
    Routed r;
    check_gradients(tc,
                    {.variables = {{"logits", logits}},
                     .forward =
                         [&](Context& ctx) {
                           Arena& arena = ctx.activations();
                           r = {arena.empty({3, 2}, DType::i32), arena.empty({3, 2}, DType::f64),
                                arena.empty({3, 6}, DType::f64)};
                           ctx.run(SigmoidTopKForward{.experts = r.experts,
                                                      .weights = r.weights,
                                                      .scores = r.scores,
                                                      .logits = logits,
                                                      .bias = bias,
                                                      .spec = spec});
                           return std::vector{r.weights};
                         },
                     .backward =
                         [&](Context& ctx, const std::vector<Tensor>& dout) {
                           const Tensor dlogits = ctx.activations().empty({3, 6}, DType::f64);
                           ctx.run(SigmoidTopKBackward{.dlogits = dlogits,
                                                       .dweights = dout[0],
                                                       .experts = r.experts,
                                                       .weights = r.weights,
                                                       .scores = r.scores,
                                                       .spec = spec});
                           return std::vector{dlogits};
                         }},
                    {.mutations = normalize});
  }
}

TEST(SigmoidRouterCheck, RejectsWhatDoesNotFit) {
  TestContext tc(DType::f32);
  SigmoidTopKForward op{.experts = tc.empty({2, 3}, DType::i32),
                        .weights = tc.empty({2, 3}),
                        .scores = tc.empty({2, 8}),
                        .logits = tc.empty({2, 8}),
                        .bias = tc.empty({8}),
                        .spec = {.groups = 4, .top_groups = 2}};
  EXPECT_NO_THROW(op.check());
  op.spec.groups = 3;
  EXPECT_REJECTED(op, "sigmoid_topk_forward: 2 of 3 groups of 8 experts");
  op.spec = {.groups = 4, .top_groups = 1};
  EXPECT_REJECTED(op, "3 of 8 experts in 1 of 4 groups");
}

}  // namespace
}  // namespace sluice::test
