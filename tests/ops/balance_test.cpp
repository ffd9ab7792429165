#include "ops/balance.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/gradient_check.h"
#include "support/known_mutants.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class BalanceOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(BalanceOps);

TEST_P(BalanceOps, LoadsAreAddedUp) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    TestContext tc(dtype, GetParam());
    const Tensor load = tc.of({4}, dtype, {10, 20, 30, 40});
    tc->run(ExpertLoad{.load = load, .experts = tc.ints({3, 2}, {0, 3, 3, 1, 3, 0})});
    EXPECT_TRUE(holds(load, {12, 21, 30, 43}));
    tc->run(ExpertLoad{.load = load, .experts = tc.empty({0, 2}, DType::i32)});
    EXPECT_TRUE(holds(load, {12, 21, 30, 43}));
  }
}

TEST_P(BalanceOps, LoadOfManySlotsAgreesWithRef) {
  constexpr int64_t kTokens = 3000, kSlots = 8, kExperts = 385;
  compare(DType::f32, 1, [&](TestContext& tc) {
    const Tensor load = tc.random({kExperts}, 1), experts = tc.empty({kTokens, kSlots}, DType::i32);
    tc->run(Fill{.x = load, .value = 3});
    randomize_below(experts, 2, kExperts);
    tc->run(ExpertLoad{.load = load, .experts = experts});
    return std::vector{load};
  });
}

TEST_P(BalanceOps, BiasesMoveTowardsTheMean) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    TestContext tc(dtype, GetParam());
    const Tensor bias = tc.of({4}, dtype, {0, 1, -1, 0.25}), load = tc.of({4}, dtype, {3, 2, 1, 0});
    tc->run(BalanceBias{.bias = bias, .load = load, .mean = 2, .rate = 0.5});
    EXPECT_TRUE(holds(bias, {-0.5, 1, -0.5, 0.75}));
    tc->run(BalanceBias{.bias = bias, .load = load, .mean = 2.25, .rate = 1});
    EXPECT_TRUE(holds(bias, {-1.5, 2, 0.5, 1.75}));
  }
}

TEST_P(BalanceOps, SharesAddUpToOne) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    TestContext tc(dtype, GetParam());
    const Tensor share = tc.empty({4}), load = tc.of({4}, dtype, {3, 2, 11, 0});
    tc->run(LoadShare{.share = share, .load = load, .slots = 16});
    EXPECT_TRUE(holds(share, {3 / 16., 2 / 16., 11 / 16., 0}));
  }
}

// Shares of a load are that load over its slots.
TEST_P(BalanceOps, LossGradientOfSharesIsThatOfLoads) {
  constexpr int64_t kSlots = 16;
  std::vector<std::vector<double>> got;
  for (const bool shares : {false, true}) {
    TestContext tc(DType::f64, GetParam());
    const Tensor dlogits = tc.random({5, 4}, 1), load = tc.of({1, 4}, DType::f64, {3, 2, 11, 0});
    if (shares) tc->run(LoadShare{.share = load.view({4}), .load = load.view({4}), .slots = kSlots});
    tc->run(BalanceLossBackward{.dlogits = dlogits,
                                .probs = tc.random(dlogits.shape(), 2, 0.1, 0.5),
                                .load = load,
                                .grad_scale = tc.of({1}, DType::f64, {0.7}),
                                .slots = shares ? 1 : kSlots,
                                .coef = 0.3});
    got.push_back(values_of(dlogits));
  }
  for (size_t i = 0; i < got[0].size(); ++i) EXPECT_NEAR(got[0][i], got[1][i], 1e-15);
}

TEST_P(BalanceOps, LossGradientAgreesWithRef) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    for (const bool sigmoid : {false, true}) {
      for (const auto& [tokens, runs, num_experts] :
           {std::tuple{0, 1, 3}, {1, 1, 1}, {70, 1, 33}, {70, 7, 33}, {9, 3, 384}}) {
        compare(dtype, num_experts, [&](TestContext& tc) {
          const Tensor dlogits = tc.random({tokens, num_experts}, 1), probs = tc.random(dlogits.shape(), 2, 0.1, 0.5);
          tc->run(BalanceLossBackward{.dlogits = dlogits,
                                      .probs = probs,
                                      .load = tc.random({runs, num_experts}, 3),
                                      .grad_scale = tc.of({1}, DType::f64, {0.7}),
                                      .slots = std::max<int64_t>(1, tokens / runs),
                                      .coef = 0.3,
                                      .sigmoid = sigmoid});
          return std::vector{dlogits};
        });
      }
    }
  }
}

// E / (K T) sum_e load_e mean_t p_te, from the routing itself.
double balance_loss(const Tensor& experts, const Tensor& probs) {
  const int64_t tokens = probs.dim(0), num_experts = probs.dim(1), top_k = experts.dim(1);
  const std::vector<double> chosen = values_of(experts), p = values_of(probs);
  double sum = 0;
  for (const double e : chosen) {
    if (e < 0) continue;  // a mutant's
    for (int64_t t = 0; t < tokens; ++t) sum += p[static_cast<size_t>(t * num_experts) + static_cast<size_t>(e)];
  }
  return sum * static_cast<double>(num_experts) / static_cast<double>(top_k * tokens * tokens);
}

TEST(BalanceLossGradient, OfTheLogits) {
  constexpr int64_t kTokens = 5, kExperts = 4, kTopK = 2;
  constexpr double kCoef = 0.4;
  TestContext tc(DType::f64);
  const Tensor logits = tc.random({kTokens, kExperts}, 4);
  Tensor experts, probs;
  const Program program{
      .variables = {{"logits", logits}},
      .forward =
          [&](Context& ctx) {
            Arena& arena = ctx.activations();
            experts = arena.empty({kTokens, kTopK}, DType::i32);
            probs = arena.empty(logits.shape(), DType::f64);
            const Tensor weights = arena.empty({kTokens, kTopK}, DType::f64), loss = arena.empty({1}, DType::f64);
            ctx.run(SoftmaxTopKForward{.experts = experts, .weights = weights, .probs = probs, .logits = logits});
            assign(loss, {kCoef * balance_loss(experts, probs)});
            return std::vector{loss};
          },
      .backward =
          [&](Context& ctx, const std::vector<Tensor>& dout) {
            Arena& arena = ctx.scratch();
            const Tensor load = arena.empty({1, kExperts}, DType::f64),
                         dlogits = arena.empty(logits.shape(), DType::f64);
            const Tensor scale = arena.empty({1}, DType::f64);
            assign(scale, {values_of(dout[0]).front() / kTokens});
            ctx.run(Fill{.x = load, .value = 0});
            ctx.run(Fill{.x = dlogits, .value = 0});
            ctx.run(ExpertLoad{.load = load.view({kExperts}), .experts = experts});
            ctx.run(BalanceLossBackward{.dlogits = dlogits,
                                        .probs = probs,
                                        .load = load,
                                        .grad_scale = scale,
                                        .slots = kTopK * kTokens,
                                        .coef = kCoef});
            return std::vector{dlogits};
          },
      .output_gradient = {}};
  const MutationReport report = check_gradients(tc, program);
  expect_known(report, {{"softmax_topk_forward.weights", "the balance loss does not depend on them"}});
}

TEST(BalanceOpsChecks, SayWhatIsWrong) {
  TestContext tc(DType::f32);
  const Tensor two = tc.empty({2}), three = tc.empty({3}), matrix = tc.empty({4, 3});
  const Tensor narrow = tc.empty({1, 2}), whole = tc.empty({1, 3}), uneven = tc.empty({3, 3});
  EXPECT_REJECTED((BalanceBias{.bias = two, .load = three}), "balance_bias: load is f32[3]");
  EXPECT_REJECTED((ExpertLoad{.load = tc.empty({2}, DType::bf16), .experts = tc.empty({1, 2}, DType::i32)}), "bf16");
  const Tensor scale = tc.empty({1}, DType::f64);
  EXPECT_REJECTED((BalanceLossBackward{.dlogits = matrix, .probs = matrix, .load = narrow, .grad_scale = scale}),
                  "balance_loss_backward: load is f32[1, 2]");
  EXPECT_REJECTED((BalanceLossBackward{.dlogits = matrix, .probs = matrix, .load = uneven, .grad_scale = scale}),
                  "3 runs of 4 tokens");
  EXPECT_REJECTED((BalanceLossBackward{.dlogits = matrix, .probs = matrix, .load = whole, .grad_scale = scale}),
                  "loads of 0 slots");
  EXPECT_REJECTED((LoadShare{.share = two, .load = three, .slots = 1}), "load_share: load is f32[3]");
  EXPECT_REJECTED((LoadShare{.share = two, .load = two}), "loads of 0 slots");
}

}  // namespace
}  // namespace sluice::test
