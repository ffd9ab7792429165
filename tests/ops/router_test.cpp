#include "ops/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class RouterOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(RouterOps);

struct Routed {
  Tensor experts, weights, probs;
};

Routed route(TestContext& tc, const Tensor& logits, int64_t top_k, bool renormalize = true) {
  const Routed r{tc.empty({logits.dim(0), top_k}, DType::i32), tc.strided({logits.dim(0), top_k}, logits.dtype()),
                 tc.strided(logits.shape(), logits.dtype())};
  tc->run(SoftmaxTopKForward{
      .experts = r.experts, .weights = r.weights, .probs = r.probs, .logits = logits, .renormalize = renormalize});
  return r;
}

TEST_P(RouterOps, ByHand) {
  TestContext tc(DType::f64, GetParam());
  const double ln2 = std::log(2), e = std::exp(1);
  const Tensor logits = tc.of({2, 4}, DType::f64, {0, 2 * ln2, ln2, 0, 700, 700, 701, 0});
  const Routed r = route(tc, logits, 2);
  EXPECT_TRUE(holds(r.experts, {1, 2, 2, 0}));
  EXPECT_TRUE(close(r.probs, std::vector{1 / 8., 4 / 8., 2 / 8., 1 / 8., 1 / (2 + e), 1 / (2 + e), e / (2 + e), 0.},
                    tolerance(DType::f64, 4)));
  EXPECT_TRUE(close(r.weights, std::vector{2 / 3., 1 / 3., e / (1 + e), 1 / (1 + e)}, tolerance(DType::f64, 4)));
  const Routed plain = route(tc, logits, 2, /*renormalize=*/false);
  EXPECT_TRUE(close(plain.weights, std::vector{4 / 8., 2 / 8., e / (2 + e), 1 / (2 + e)}, tolerance(DType::f64, 4)));
}

TEST_P(RouterOps, TiesGoToTheLowerExpert) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    TestContext tc(dtype, GetParam());
    const Tensor logits = tc.of({1, 6}, dtype, {1, 3, 3, 3, 1, 3});
    EXPECT_TRUE(holds(route(tc, logits, 3).experts, {1, 2, 3}));
    EXPECT_TRUE(holds(route(tc, logits, 6).experts, {1, 2, 3, 5, 0, 4}));
  }
}

TEST_P(RouterOps, AgreesWithRef) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    for (const auto& [shape, top_k] : {std::pair{Shape{0, 4}, 2},
                                       {Shape{1, 1}, 1},
                                       {Shape{300, 8}, 2},
                                       {Shape{33, 128}, 8},
                                       {Shape{10, 5}, 5},
                                       {Shape{3, 520}, 40},
                                       {Shape{9, 67}, 1}}) {
      compare(dtype, shape[1], [&, rows = shape, k = int64_t{top_k}](TestContext& tc) {
        const Tensor logits = tc.random(rows, 1, 3), dlogits = tc.empty(rows), dweights = tc.random({rows[0], k}, 2);
        const auto routed = [&](bool renormalize) {
          const Routed r = route(tc, logits, k, renormalize);
          tc->run(SoftmaxTopKBackward{.dlogits = dlogits,
                                      .dweights = dweights,
                                      .experts = r.experts,
                                      .weights = r.weights,
                                      .probs = r.probs,
                                      .renormalize = renormalize});
          return r;
        };
        const Routed plain = routed(false);
        const Tensor plain_dlogits = tc.copy(dlogits);
        const Routed r = routed(true);
        std::vector<Tensor> results{r.experts, r.weights, r.probs, plain.weights, plain_dlogits};
        if (k > 1) results.push_back(dlogits);  // of one expert it is 0 but for rounding
        return results;
      });
    }
  }
}

// Whatever has become of the logits, experts can be used as indices.
TEST_P(RouterOps, ExpertsAreDistinctWhateverTheLogits) {
  constexpr int64_t kExperts = 70, kTop = 40;
  for (const double bad : {NAN, INFINITY, -INFINITY}) {
    for (const int64_t every : {1, 2, 7}) {
      TestContext tc(DType::f32, GetParam());
      const Tensor logits = tc.random({1, kExperts}, 1);
      std::vector<double> values = values_of(logits);
      for (size_t e = 0; e < values.size(); e += static_cast<size_t>(every)) values[e] = bad;
      assign(logits, values);
      const std::vector<double> experts = values_of(route(tc, logits, kTop).experts);
      const std::set<double> distinct(experts.begin(), experts.end());
      EXPECT_EQ(distinct.size(), static_cast<size_t>(kTop));
      EXPECT_GE(*distinct.begin(), 0);
      EXPECT_LT(*distinct.rbegin(), kExperts);
    }
  }
}

TEST_P(RouterOps, BackwardRefusesExpertsThatAreNotThere) {
  for (const double bad : {-1., 4.}) {
    TestContext tc(DType::f32, GetParam());
    const Tensor probs = tc.random({2, 4}, 1), weights = tc.random({2, 2}, 2);
    EXPECT_THROW(tc->run(SoftmaxTopKBackward{.dlogits = tc.empty({2, 4}),
                                             .dweights = tc.random({2, 2}, 3),
                                             .experts = tc.ints({2, 2}, {0, 1, 2, bad}),
                                             .weights = weights,
                                             .probs = probs}),
                 Error);
  }
}

MutationReport check_router(int64_t top_k, bool renormalize, const std::vector<Equivalent>& equivalent) {
  TestContext tc(DType::f64);
  const Tensor logits = tc.random({6, 5}, 1);
  Routed r;
  return check_gradients(tc,
                         {.variables = {{"logits", logits}},
                          .forward =
                              [&](Context& ctx) {
                                Arena& arena = ctx.activations();
                                r = {arena.empty({6, top_k}, DType::i32), arena.empty({6, top_k}, DType::f64),
                                     arena.empty({6, 5}, DType::f64)};
                                ctx.run(SoftmaxTopKForward{.experts = r.experts,
                                                           .weights = r.weights,
                                                           .probs = r.probs,
                                                           .logits = logits,
                                                           .renormalize = renormalize});
                                return std::vector{r.weights};
                              },
                          .backward =
                              [&](Context& ctx, const std::vector<Tensor>& dout) {
                                const Tensor dlogits = ctx.activations().empty({6, 5}, DType::f64);
                                ctx.run(SoftmaxTopKBackward{.dlogits = dlogits,
                                                            .dweights = dout[0],
                                                            .experts = r.experts,
                                                            .weights = r.weights,
                                                            .probs = r.probs,
                                                            .renormalize = renormalize});
                                return std::vector{dlogits};
                              }},
                         {.equivalent = equivalent});
}

TEST(RouterGradient, ThroughTheChosenExperts) {
  for (const int64_t top_k : {int64_t{2}, int64_t{5}}) {
    const MutationReport report =
        check_router(top_k, true,
                     {{"softmax_topk_forward", "probs", "negate", "only ratios of probabilities count in backward"},
                      {"softmax_topk_forward", "probs", "scale 1.01", "only ratios of probabilities count in backward"},
                      {top_k == 5 ? "softmax_topk_backward" : "none", "weights", "zero input",
                       "with all experts chosen the softmax removes the mean again"}});
    EXPECT_TRUE(report.unused.empty()) << report.str();
  }
}

TEST(RouterGradient, ThroughPlainProbabilities) {
  for (const int64_t top_k : {int64_t{1}, int64_t{2}, int64_t{5}}) {
    const MutationReport report = check_router(
        top_k, false,
        {{"softmax_topk_backward", "weights", "zero input", "they are probabilities, which backward reads as such"},
         {"softmax_topk_forward", "weights", "negate", "likewise"},
         {"softmax_topk_forward", "weights", "scale 1.01", "likewise"}});
    EXPECT_TRUE(report.unused.empty()) << report.str();
  }
}

TEST_P(RouterOps, ZGradientAgreesWithRef) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    for (const Shape& shape : {Shape{0, 4}, Shape{1, 1}, Shape{300, 8}, Shape{33, 128}, Shape{9, 67}}) {
      compare(dtype, shape[1], [&](TestContext& tc) {
        const Tensor dlogits = tc.strided(shape, dtype), logits = tc.strided(shape, dtype);
        randomize(dlogits, 1);
        randomize(logits, 2, 3);
        tc->run(RouterZBackward{
            .dlogits = dlogits, .logits = logits, .grad_scale = tc.of({1}, DType::f64, {0.7}), .coef = 0.3});
        return std::vector{dlogits};
      });
    }
  }
}

// Logits beyond what exp can hold.
TEST_P(RouterOps, ZGradientOfLargeLogits) {
  TestContext tc(DType::f64, GetParam());
  const double less = 1 / (1 + std::exp(1)), more = 1 - less;
  const Tensor dlogits = tc.of({2, 2}, DType::f64, {1, 2, 3, 4});
  const Tensor logits = tc.of({2, 2}, DType::f64, {1000, 1001, -1000, -999});
  tc->run(
      RouterZBackward{.dlogits = dlogits, .logits = logits, .grad_scale = tc.of({1}, DType::f64, {0.5}), .coef = 0.25});
  const double high = 0.25 * (1001 - std::log(more)), low = 0.25 * (-999 - std::log(more));
  EXPECT_TRUE(close(dlogits, std::vector{1 + high * less, 2 + high * more, 3 + low * less, 4 + low * more},
                    tolerance(DType::f64, 4)));
}

// coef sum lse^2
double z_loss(const Tensor& logits, double coef) {
  const auto width = static_cast<size_t>(logits.dim(1));
  const std::vector<double> values = values_of(logits);
  double sum = 0;
  for (size_t first = 0; first < values.size(); first += width) {
    double exponentials = 0;
    for (size_t e = 0; e < width; ++e) exponentials += std::exp(values[first + e]);
    sum += std::log(exponentials) * std::log(exponentials);
  }
  return coef * sum;
}

TEST(RouterGradient, OfTheZLoss) {
  TestContext tc(DType::f64);
  constexpr double kCoef = 0.4;
  const Tensor logits = tc.random({6, 5}, 1);
  const MutationReport report = check_gradients(
      tc, {.variables = {{"logits", logits}},
           .forward =
               [&](Context& ctx) {
                 const Tensor loss = ctx.activations().empty({1}, DType::f64);
                 assign(loss, {z_loss(logits, kCoef)});
                 return std::vector{loss};
               },
           .backward =
               [&](Context& ctx, const std::vector<Tensor>& dout) {
                 const Tensor dlogits = ctx.activations().empty({6, 5}, DType::f64);
                 ctx.run(Fill{.x = dlogits, .value = 0});
                 ctx.run(RouterZBackward{.dlogits = dlogits, .logits = logits, .grad_scale = dout[0], .coef = kCoef});
                 return std::vector{dlogits};
               },
           .output_gradient = {}});
  EXPECT_TRUE(report.unused.empty()) << report.str();
}

TEST(RouterCheck, RejectsWhatDoesNotFit) {
  TestContext tc(DType::f32);
  const Tensor logits = tc.empty({3, 4}), weights = tc.empty({3, 2}), experts = tc.empty({3, 2}, DType::i32);
  const SoftmaxTopKForward good{.experts = experts, .weights = weights, .probs = logits, .logits = logits};
  EXPECT_NO_THROW(good.check());
  SoftmaxTopKForward op = good;
  op.experts = tc.empty({3, 5}, DType::i32);
  EXPECT_REJECTED(op, "softmax_topk_forward: top 5 of 4 experts");
  op = good;
  op.logits = tc.empty({3, 4}, DType::bf16);
  EXPECT_REJECTED(op, "expected the accumulator type");
  const Tensor scale = tc.empty({1}, DType::f64), narrow = tc.empty({3, 3});
  EXPECT_REJECTED((RouterZBackward{.dlogits = logits, .logits = narrow, .grad_scale = scale}),
                  "router_z_backward: logits is f32[3, 3]");
  EXPECT_REJECTED((RouterZBackward{.dlogits = logits, .logits = logits, .grad_scale = logits}), "grad_scale is f32");
}

std::vector<int32_t> experts_of(const GateSpec& gate, int64_t token) {
  std::vector<int32_t> experts(static_cast<size_t>(gate.top_k), -1);
  gate_experts(gate, token, experts.data());
  for (const int32_t e : experts) {
    EXPECT_GE(e, 0);
    EXPECT_LT(e, gate.num_experts);
  }
  EXPECT_EQ(std::set<int32_t>(experts.begin(), experts.end()).size(), experts.size());
  return experts;
}

std::vector<int64_t> loads_of(const GateSpec& gate, int64_t begin, int64_t end) {
  std::vector<int64_t> loads(static_cast<size_t>(gate.num_experts));
  for (int64_t token = begin; token < end; ++token) {
    for (const int32_t e : experts_of(gate, token)) ++loads[static_cast<size_t>(e)];
  }
  return loads;
}

TEST(Gate, PublishedCountsThroughTheExperts) {
  const GateSpec gate{.kind = GateKind::published, .num_experts = 5, .top_k = 2};
  EXPECT_EQ(experts_of(gate, 0), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(experts_of(gate, 2), (std::vector<int32_t>{4, 0}));
  EXPECT_EQ(experts_of(gate, 5'000'000'001), (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(loads_of(gate, 0, 5), std::vector<int64_t>(5, 2));
  double weights[2];
  gate_weights(gate, 3, weights);
  EXPECT_EQ(weights[0], 0.5);
  EXPECT_EQ(weights[1], 0.5);
}

TEST(Gate, SpreadIsBalancedOverEveryBlockOfExpertsAndRandom) {
  for (const auto& [num_experts, top_k] : {std::pair{1, 1}, {2, 1}, {3, 3}, {8, 2}, {12, 5}, {16, 16}, {128, 8}}) {
    const GateSpec gate{.kind = GateKind::spread, .num_experts = num_experts, .top_k = top_k, .seed = 7};
    for (const int64_t block : {0, 1, 2, 1'000'000'000}) {
      EXPECT_EQ(loads_of(gate, block * num_experts, (block + 1) * num_experts),
                std::vector<int64_t>(static_cast<size_t>(num_experts), top_k));
    }
  }
  GateSpec gate{.kind = GateKind::spread, .num_experts = 64, .top_k = 4, .seed = 7};
  EXPECT_NE(experts_of(gate, 0), experts_of(gate, 64));
  const std::vector<int32_t> before = experts_of(gate, 10);
  gate.seed = 8;
  EXPECT_NE(experts_of(gate, 10), before);
}

// A token's experts lie on more ranks than those of the published gate: on as many as random ones.
TEST(Gate, SpreadReachesManyRanks) {
  const GateSpec gate{.kind = GateKind::spread, .num_experts = 64, .top_k = 8, .seed = 3};
  double ranks = 0;
  constexpr int64_t kTokens = 64 * 64;
  for (int64_t token = 0; token < kTokens; ++token) {
    std::set<int32_t> reached;
    for (const int32_t e : experts_of(gate, token)) reached.insert(e / 8);
    ranks += static_cast<double>(reached.size());
  }
  // 8 ranks of 8 experts: 8 (1 - C(56, 8) / C(64, 8)) = 5.43 expected
  EXPECT_NEAR(ranks / kTokens, 5.43, 0.15);
}

TEST(Gate, SkewedReachesItsRatio) {
  struct Case {
    int64_t num_experts, top_k;
    double skew;
    int64_t idle;
  };
  for (const auto& [num_experts, top_k, skew, idle] :
       {Case{8, 2, 1.0, 0}, Case{8, 2, 2.0, 0}, Case{8, 2, 4.0, 0}, Case{16, 4, 2.5, 3}, Case{128, 8, 6.0, 0},
        Case{4, 4, 1.0, 0}, Case{4, 1, 4.0, 3}, Case{6, 2, 3.0, 4}, Case{1, 1, 1.0, 0}}) {
    const GateSpec gate{
        .kind = GateKind::skewed, .num_experts = num_experts, .top_k = top_k, .skew = skew, .seed = 11, .idle = idle};
    SCOPED_TRACE(fmt::format("{} experts, top {}, skew {}, {} idle", num_experts, top_k, skew, idle));
    ASSERT_NO_THROW(gate.check());
    constexpr int64_t kBegin = 12345, kTokens = 4096;
    std::vector<int64_t> loads = loads_of(gate, kBegin, kBegin + kTokens);
    std::sort(loads.rbegin(), loads.rend());
    const double mean = static_cast<double>(kTokens * top_k) / static_cast<double>(num_experts);
    EXPECT_NEAR(static_cast<double>(loads[0]), skew * mean, 1 + 0.03 * mean);
    EXPECT_EQ(std::count(loads.begin(), loads.end(), 0), idle);
    if (num_experts > 1 + idle) {  // the others share evenly
      const auto last = static_cast<size_t>(num_experts - idle - 1);
      EXPECT_NEAR(static_cast<double>(loads[1]), static_cast<double>(loads[last]), 0.12 * mean + 2);
    }
  }
}

TEST(Gate, ImpossibleNumbersAreUserErrors) {
  const auto rejected = [](GateSpec gate, const std::string& text) {
    try {
      gate.check();
      ADD_FAILURE() << "accepted: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::user);
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
    }
  };
  rejected({.num_experts = 4, .top_k = 5}, "top_k is 5 with 4 experts");
  rejected({.num_experts = 4, .top_k = 0}, "top_k is 0");
  rejected({.num_experts = 4, .top_k = 2, .noise = 1.5}, "gate noise is 1.5");
  rejected({.num_experts = 4, .top_k = 2, .noise = NAN}, "gate noise is nan");
  rejected({.kind = GateKind::skewed, .num_experts = 4, .top_k = 2, .skew = 2.1}, "gate skew 2.1 is not in [1, 2]");
  rejected({.kind = GateKind::skewed, .num_experts = 4, .top_k = 2, .skew = 0.9}, "gate skew 0.9");
  rejected({.kind = GateKind::skewed, .num_experts = 4, .top_k = 2, .skew = 2, .idle = 3}, "3 idle experts of 4");
}

TEST(Gate, NoiseUnbalancesThePublishedGate) {
  GateSpec gate{.kind = GateKind::published, .num_experts = 16, .top_k = 4, .noise = 0.5, .seed = 5};
  double weights[4];
  std::vector<int64_t> loads = loads_of(gate, 0, 2000);
  EXPECT_NE(loads, std::vector<int64_t>(16, 500));
  for (const int64_t load : loads) EXPECT_NEAR(static_cast<double>(load), 500, 120);
  for (int64_t token = 0; token < 50; ++token) {
    gate_weights(gate, token, weights);
    EXPECT_NEAR(std::accumulate(weights, weights + 4, 0.0), 1, 1e-14);
    for (const double w : weights) EXPECT_GT(w, 0.5 / 4);  // (1 - z) / K at least
  }
  EXPECT_NE(weights[0], weights[1]);
}

TEST(Gate, NoisyGateTakesTheBestOfAllScores) {
  int64_t compared = 0;
  for (const double noise : {1e-12, 1e-3, 0.1, 0.5, 1.0}) {
    for (const auto& [num_experts, top_k] : {std::pair{256, 8}, {384, 8}, {67, 33}, {5, 5}, {1, 1}}) {
      const GateSpec gate{
          .kind = GateKind::published, .num_experts = num_experts, .top_k = top_k, .noise = noise, .seed = 11};
      for (int64_t token = 0; token < 200; ++token) {
        std::vector<int32_t> expected(static_cast<size_t>(num_experts));
        std::iota(expected.begin(), expected.end(), 0);
        std::ranges::stable_sort(expected, std::greater{}, [&](int32_t e) { return gates::score(gate, token, e); });
        expected.resize(static_cast<size_t>(top_k));
        ASSERT_EQ(experts_of(gate, token), expected) << "noise " << noise << ", token " << token;
        ++compared;
      }
    }
  }
  EXPECT_EQ(compared, 5 * 5 * 200);
}

TEST_P(RouterOps, ForcedGateFollowsSampleIdsWhereverTheyLie) {
  for (const GateKind kind : {GateKind::published, GateKind::spread, GateKind::skewed}) {
    TestContext tc(DType::bf16, GetParam());
    const GateSpec gate{.kind = kind, .num_experts = 6, .top_k = 2, .skew = 1.5, .seed = 3};
    const Tensor ids = tc.of({3}, DType::i64, {7, 0, 1'000'000}), experts = tc.empty({12, 2}, DType::i32);
    const Tensor weights = tc.empty({12, 2}, DType::f32);
    tc->run(ForcedGate{.experts = experts, .weights = weights, .sample_ids = ids, .seq_len = 4, .gate = gate});
    std::vector<double> expected;
    for (const int64_t id : {7, 0, 1'000'000}) {
      for (int64_t s = 0; s < 4; ++s) {
        for (const int32_t e : experts_of(gate, id * 4 + s)) expected.push_back(e);
      }
    }
    EXPECT_EQ(values_of(experts), expected);
    EXPECT_EQ(values_of(weights), std::vector<double>(24, 0.5));
  }
}

TEST_P(RouterOps, NoisyGateIsTheSameOnAllDevices) {
  for (const auto& [num_experts, top_k] : {std::pair{1, 1}, {40, 3}, {67, 33}}) {
    compare(DType::f32, num_experts, [&, e = num_experts, k = int64_t{top_k}](TestContext& tc) {
      const GateSpec gate{.kind = GateKind::published, .num_experts = e, .top_k = k, .noise = 0.7, .seed = 3};
      const Tensor ids = tc.of({3}, DType::i64, {7, 0, 1'000'000}), experts = tc.empty({15, k}, DType::i32);
      const Tensor weights = tc.strided({15, k}, DType::f32);
      tc->run(ForcedGate{.experts = experts, .weights = weights, .sample_ids = ids, .seq_len = 5, .gate = gate});
      return std::vector{experts, weights};
    });
  }
}

}  // namespace
}  // namespace sluice::test
