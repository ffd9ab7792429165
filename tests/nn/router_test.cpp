#include "nn/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "module.h"

namespace sluice::test {
namespace {

constexpr int64_t kTokens = 6, kHidden = 5, kExperts = 5, kTopK = 2;

MoeConfig config_of(RouterKind kind) {
  return {.hidden = kHidden,
          .num_experts = kExperts,
          .top_k = kTopK,
          .seq_len = 3,
          .router = kind,
          .gate = {.kind = GateKind::spread, .num_experts = kExperts, .top_k = kTopK, .seed = 3}};
}

TEST(RouterModule, LearnedGradients) {
  TestContext tc(DType::f64);
  Router router("router", config_of(RouterKind::softmax_topk), 0.02);
  ASSERT_TRUE(router.learned());
  Program program{.variables = bind_parameters(tc, router)};
  // The router adds to the gradient of its input.
  const Tensor x = tc.empty({kTokens, kHidden}), dx = tc.empty({kTokens, kHidden});
  program.variables.push_back({"x", x, dx});
  RouterSaved saved;
  RoutingRecord record;
  program.forward = [&](Context& ctx) {
    saved = {};
    record = {};
    router.forward(ctx, x, Tensor(), record, saved);
    return std::vector{record.weights};
  };
  program.backward = [&](Context& ctx, const std::vector<Tensor>& dout) {
    router.backward(ctx, dx, dout[0], record, saved);
    router.weight_grad(ctx, saved);
    return std::vector<Tensor>{};
  };
  draw_routed(tc, x, kTopK, [&] {
    program.forward(*tc);
    return saved.probs;
  });
  const MutationReport report = check_gradients(tc, program, {.equivalent = router_equivalents()});
  EXPECT_EQ(report.ops, 5);
  EXPECT_TRUE(report.unused.empty()) << report.str();
}

// From the gradients of two outputs, the weights and the mean of a loss of the tokens, a balance loss or a z-loss. All
// outlive the function.
std::function<std::vector<Tensor>(Context&, const std::vector<Tensor>&)> backward_of_both(const Router& router,
                                                                                          const Tensor& dx,
                                                                                          const RoutingRecord& record,
                                                                                          RouterSaved& saved) {
  return [&](Context& ctx, const std::vector<Tensor>& dout) {
    const Tensor grad_scale = ctx.scratch().empty({1}, DType::f64);
    assign(grad_scale, {values_of(dout[1]).front() / kTokens});
    router.backward(ctx, dx, dout[0], record, saved, grad_scale);
    router.weight_grad(ctx, saved);
    return std::vector<Tensor>{};
  };
}

// The weights and the balance loss as two outputs; the latter from its definition.
TEST(RouterModule, GradientsWithABalanceLossAndABias) {
  TestContext tc(DType::f64);
  MoeConfig config = config_of(RouterKind::softmax_topk);
  config.router_bias = true;
  config.aux_loss_coef = 0.3;
  Router router("router", config, 0.02);
  Program program{.variables = bind_parameters(tc, router)};
  ASSERT_EQ(program.variables.size(), 2U);
  const Tensor x = tc.empty({kTokens, kHidden}), dx = tc.empty({kTokens, kHidden});
  program.variables.push_back({"x", x, dx});
  RouterSaved saved;
  RoutingRecord record;
  program.forward = [&](Context& ctx) {
    saved = {};
    record = {};
    router.forward(ctx, x, Tensor(), record, saved);
    double loss = 0;
    const std::vector<double> probs = values_of(saved.probs);
    for (const double e : values_of(record.experts)) {
      if (e < 0) continue;  // a mutant's
      for (int64_t t = 0; t < kTokens; ++t) loss += probs[static_cast<size_t>(t * kExperts) + static_cast<size_t>(e)];
    }
    const Tensor balance = ctx.activations().empty({1}, DType::f64);
    assign(balance, {config.aux_loss_coef * loss * kExperts / (kTopK * kTokens * kTokens)});
    return std::vector{record.weights, balance};
  };
  program.backward = backward_of_both(router, dx, record, saved);
  draw_routed(tc, x, kTopK, [&] {
    program.forward(*tc);
    return saved.probs;
  });
  const MutationReport report = check_gradients(tc, program);
  EXPECT_EQ(report.ops, 10);
  EXPECT_TRUE(report.unused.empty()) << report.str();
}

TEST(RouterModule, SigmoidGradientsAndLoads) {
  TestContext tc(DType::f64);
  MoeConfig config = config_of(RouterKind::sigmoid_topk);
  config.num_experts = 6;
  config.sigmoid = {.groups = 3, .top_groups = 2, .scale = 2.5};
  Router router("router", config, 0.02);
  ASSERT_TRUE(router.learned());
  Program program{.variables = bind_parameters(tc, router)};
  ASSERT_EQ(program.variables.size(), 1U);
  Param* bias = nullptr;
  router.visit([&](Param& param) { bias = &param; });
  EXPECT_EQ(bias->spec.name, "router.selection_bias");
  EXPECT_EQ(bias->spec.balanced_top_k, kTopK);
  const Tensor x = tc.empty({kTokens, kHidden}), dx = tc.empty({kTokens, kHidden});
  program.variables.push_back({"x", x, dx});
  RouterSaved saved;
  RoutingRecord record;
  std::vector<double> chosen;
  program.forward = [&](Context& ctx) {
    saved = {};
    record = {};
    router.forward(ctx, x, Tensor(), record, saved);
    chosen = values_of(record.experts);
    return std::vector{record.weights};
  };
  program.backward = [&](Context& ctx, const std::vector<Tensor>& dout) {
    router.backward(ctx, dx, dout[0], record, saved);
    router.weight_grad(ctx, saved);
    return std::vector<Tensor>{};
  };
  draw_routed(tc, x, kTopK, [&] {
    program.forward(*tc);
    return choices_of(tc, saved.probs, bias->value);
  });
  const MutationReport report = check_gradients(tc, program);
  expect_known(report, unused_load());

  tc->run(Fill{.x = bias->grad, .value = 100});
  run_program(tc, program);
  std::vector<double> expected(6, 100);
  for (const double e : chosen) ++expected[static_cast<size_t>(e)];
  EXPECT_EQ(values_of(bias->grad), expected);
}

// coef sum over sequences of S / T sum_e f_e P_e: f_e counts the top K scores without groups and bias, P_e is the mean
// of the scores over their token's sum. [DeepSeek-V3, arXiv:2412.19437, equations 17 to 20]
double sequence_balance_loss(const std::vector<double>& scores, int64_t num_experts, int64_t seq_len) {
  const auto width = static_cast<size_t>(num_experts), length = static_cast<size_t>(seq_len);
  const size_t tokens = scores.size() / width;
  double sum = 0;
  for (size_t first = 0; first < tokens; first += length) {
    std::vector<double> counts(width), shares(width);
    for (size_t t = first; t < first + length; ++t) {
      const std::vector<double> s(scores.begin() + static_cast<int64_t>(t * width),
                                  scores.begin() + static_cast<int64_t>((t + 1) * width));
      double all = 0;
      for (const double each : s) all += each;
      for (size_t e = 0; e < width; ++e) {
        shares[e] += s[e] / all;
        if (std::ranges::count_if(s, [&](double other) { return other > s[e]; }) < kTopK) ++counts[e];
      }
    }
    const auto n = static_cast<double>(length);
    for (size_t e = 0; e < width; ++e) sum += counts[e] * static_cast<double>(width) / (kTopK * n) * shares[e] / n * n;
  }
  return sum / static_cast<double>(tokens);
}

TEST(RouterModule, SigmoidGradientsWithTheLossOfEachSequence) {
  TestContext tc(DType::f64);
  MoeConfig config = config_of(RouterKind::sigmoid_topk);
  config.num_experts = 6;
  config.sigmoid = {.groups = 3, .top_groups = 2, .scale = 2.5};
  config.aux_loss_coef = 0.3;
  Router router("router", config, 0.02);
  Program program{.variables = bind_parameters(tc, router)};
  Param* bias = nullptr;
  router.visit([&](Param& param) { bias = &param; });
  const Tensor x = tc.empty({kTokens, kHidden}), dx = tc.empty({kTokens, kHidden});
  program.variables.push_back({"x", x, dx});
  RouterSaved saved;
  RoutingRecord record;
  program.forward = [&](Context& ctx) {
    saved = {};
    record = {};
    router.forward(ctx, x, Tensor(), record, saved);
    const Tensor balance = ctx.activations().empty({1}, DType::f64);
    assign(balance,
           {config.aux_loss_coef * sequence_balance_loss(values_of(saved.probs), config.num_experts, config.seq_len)});
    return std::vector{record.weights, balance};
  };
  program.backward = backward_of_both(router, dx, record, saved);
  // Neither choice may change under the step of a difference.
  draw_routed(tc, x, kTopK, [&] {
    program.forward(*tc);
    const double plain = routing_margin(saved.probs, kTopK),
                 steered = routing_margin(choices_of(tc, saved.probs, bias->value), kTopK);
    return plain < steered ? saved.probs : choices_of(tc, saved.probs, bias->value);
  });
  const MutationReport report = check_gradients(tc, program);
  std::vector<Unused> known = unused_load();
  const char* reason = "only the choice is used";
  known.push_back({"softmax_topk_forward.weights", reason});
  known.push_back({"softmax_topk_forward.probs", reason});
  expect_known(report, known);
}

// E sum_e share_e mean_t p_te, p = probs or, normalised, the scores of a sigmoid router.
double balance_loss_of_shares(const std::vector<double>& probs, const std::vector<double>& shares) {
  const size_t width = shares.size();
  double loss = 0;
  for (size_t first = 0; first < probs.size(); first += width) {
    double all = 0;
    for (size_t e = 0; e < width; ++e) all += probs[first + e];
    for (size_t e = 0; e < width; ++e) loss += shares[e] * probs[first + e] / all;
  }
  const size_t tokens = probs.size() / width;
  return loss * static_cast<double>(width) / static_cast<double>(tokens);
}

// With shares of the step before, the loss over the global batch has the gradient of that formula, and the
// micro-batch's slots are counted where the next step's shares come from.
TEST(RouterModule, GradientsWithALossOverTheGlobalBatch) {
  for (const RouterKind kind : {RouterKind::softmax_topk, RouterKind::sigmoid_topk}) {
    TestContext tc(DType::f64);
    MoeConfig config = config_of(kind);
    config.aux_loss_coef = 0.3;
    config.aux_loss_over = BalanceOver::global_batch;
    Router router("router", config, 0.02);
    Program program{.variables = bind_parameters(tc, router)};
    Param *bias = nullptr, *share = nullptr;
    router.visit([&](Param& param) {
      if (param.spec.balanced_top_k > 0) (param.spec.holds_shares ? share : bias) = &param;
    });
    ASSERT_NE(share, nullptr);
    EXPECT_EQ(share->spec.name, "router.load_share");
    EXPECT_EQ(bias != nullptr, kind == RouterKind::sigmoid_topk);
    const std::vector<double> shares = {0.1, 0.4, 0, 0.3, 0.2};
    assign(share->value, shares);
    const Tensor x = tc.empty({kTokens, kHidden}), dx = tc.empty({kTokens, kHidden});
    program.variables.push_back({"x", x, dx});
    RouterSaved saved;
    RoutingRecord record;
    std::vector<double> probs;  // the memory of saved.probs is another's when a program has ended
    program.forward = [&](Context& ctx) {
      saved = {};
      record = {};
      router.forward(ctx, x, Tensor(), record, saved);
      probs = values_of(saved.probs);
      const Tensor balance = ctx.activations().empty({1}, DType::f64);
      assign(balance, {config.aux_loss_coef * balance_loss_of_shares(values_of(saved.probs), shares)});
      return std::vector{record.weights, balance};
    };
    program.backward = backward_of_both(router, dx, record, saved);
    draw_routed(tc, x, kTopK, [&] {
      program.forward(*tc);
      return bias != nullptr ? choices_of(tc, saved.probs, bias->value) : saved.probs;
    });
    std::vector<Equivalent> equivalent = router_equivalents();
    if (bias != nullptr)
      equivalent.push_back({"softmax_topk_forward", "", "", "only the next step's shares depend on it"});
    const MutationReport report = check_gradients(tc, program, {.equivalent = equivalent});
    std::vector<Unused> known = unused_load();
    for (const char* output : {"experts", "weights", "probs"}) {
      known.push_back({std::string("softmax_topk_forward.") + output, "only the next step's shares depend on it"});
    }
    expect_known(report, known);

    tc->run(Fill{.x = share->grad, .value = 100});
    run_program(tc, program);
    std::vector<double> counted = values_of(share->grad);
    double all = 0;
    for (const double n : counted) all += n - 100;
    EXPECT_EQ(all, kTokens * kTopK);
    // The most probable experts' slots, without the bias that steers the choice.
    for (size_t t = 0; t < kTokens; ++t) {
      const auto begin = probs.begin() + static_cast<int64_t>(t * kExperts);
      const std::vector<double> p(begin, begin + kExperts);
      for (size_t e = 0; e < kExperts; ++e) {
        if (std::ranges::count_if(p, [&](double other) { return other > p[e]; }) < kTopK) --counted[e];
      }
    }
    EXPECT_EQ(counted, std::vector<double>(kExperts, 100));
  }
}

// coef mean over tokens of (log sum exp logits)^2  [Zoph et al. 2022, equation 5], from the weights themselves.
double router_z_loss(const Tensor& x, const Tensor& weight, double coef) {
  const std::vector<double> xs = values_of(x), ws = values_of(weight);
  double sum = 0;
  for (size_t t = 0; t < xs.size(); t += kHidden) {
    double exponentials = 0;
    for (size_t e = 0; e < ws.size(); e += kHidden) {
      double logit = 0;
      for (size_t i = 0; i < kHidden; ++i) logit += xs[t + i] * ws[e + i];
      exponentials += std::exp(logit);
    }
    sum += std::log(exponentials) * std::log(exponentials);
  }
  return coef * sum / static_cast<double>(kTokens);
}

TEST(RouterModule, GradientsWithAZLoss) {
  for (const RouterKind kind : {RouterKind::softmax_topk, RouterKind::sigmoid_topk}) {
    TestContext tc(DType::f64);
    MoeConfig config = config_of(kind);
    config.router_z_coef = 0.3;
    Router router("router", config, 0.02);
    Program program{.variables = bind_parameters(tc, router)};
    Param *weight = nullptr, *bias = nullptr;
    router.visit([&](Param& param) { (param.spec.balanced_top_k > 0 ? bias : weight) = &param; });
    const Tensor x = tc.empty({kTokens, kHidden}), dx = tc.empty({kTokens, kHidden});
    program.variables.push_back({"x", x, dx});
    RouterSaved saved;
    RoutingRecord record;
    program.forward = [&](Context& ctx) {
      saved = {};
      record = {};
      router.forward(ctx, x, Tensor(), record, saved);
      const Tensor z = ctx.activations().empty({1}, DType::f64);
      assign(z, {router_z_loss(x, weight->value, config.router_z_coef)});
      return std::vector{record.weights, z};
    };
    program.backward = backward_of_both(router, dx, record, saved);
    draw_routed(tc, x, kTopK, [&] {
      program.forward(*tc);
      return bias != nullptr ? choices_of(tc, saved.probs, bias->value) : saved.probs;
    });
    const MutationReport report = check_gradients(tc, program, {.equivalent = router_equivalents()});
    expect_known(report, unused_load());
  }
}

TEST(RouterModule, ChoosesTheLargestLogits) {
  TestContext tc(DType::f64);
  Router router("router", config_of(RouterKind::softmax_topk), 0.02);
  bind_parameters(tc, router);
  const Tensor x = tc.random({kTokens, kHidden}, 1);
  RouterSaved saved;
  RoutingRecord record;
  router.forward(*tc, x, Tensor(), record, saved);
  const auto experts = values_of(record.experts), weights = values_of(record.weights), probs = values_of(saved.probs);
  for (size_t t = 0; t < kTokens; ++t) {
    double others = 0, chosen = 0, weight = 0;
    std::set<size_t> taken;
    for (size_t j = 0; j < kTopK; ++j) {
      const auto e = static_cast<size_t>(experts[t * kTopK + j]);
      taken.insert(e);
      chosen += probs[t * kExperts + e];
      weight += weights[t * kTopK + j];
    }
    ASSERT_EQ(taken.size(), static_cast<size_t>(kTopK));
    for (size_t e = 0; e < kExperts; ++e) {
      if (!taken.contains(e)) others = std::max(others, probs[t * kExperts + e]);
    }
    EXPECT_NEAR(weight, 1, 1e-12);
    for (size_t j = 0; j < kTopK; ++j) {
      const double p = probs[t * kExperts + static_cast<size_t>(experts[t * kTopK + j])];
      EXPECT_GE(p, others);
      EXPECT_NEAR(weights[t * kTopK + j], p / chosen, 1e-12);
    }
  }
}

// A forced gate has no parameters, decides by sample ids alone, and leaves gradients as they are.
TEST(RouterModule, ForcedGateHasNoGradients) {
  TestContext tc(DType::f64);
  const MoeConfig config = config_of(RouterKind::forced);
  Router router("router", config, 0.02);
  EXPECT_FALSE(router.learned());
  EXPECT_TRUE(bind_parameters(tc, router).empty());
  const Tensor x = tc.random({kTokens, kHidden}, 1), dx = tc.random({kTokens, kHidden}, 2);
  const Tensor dweights = tc.random({kTokens, kTopK}, 3);
  const Tensor ids = tc.of({2}, DType::i64, {7, 4});
  const std::vector<double> before = values_of(dx);
  RouterSaved saved;
  RoutingRecord record;
  router.forward(*tc, x, ids, record, saved);
  EXPECT_FALSE(saved.x.defined());
  EXPECT_FALSE(saved.probs.defined());
  router.backward(*tc, dx, dweights, record, saved);
  router.weight_grad(*tc, saved);
  EXPECT_EQ(values_of(dx), before);
  const std::vector<double> experts = values_of(record.experts);
  for (int64_t t = 0; t < kTokens; ++t) {
    int32_t expected[kTopK];
    gate_experts(config.gate, (t < 3 ? 7 : 4) * config.seq_len + t % 3, expected);
    for (int64_t j = 0; j < kTopK; ++j) EXPECT_EQ(experts[static_cast<size_t>(t * kTopK + j)], expected[j]);
  }
}

}  // namespace
}  // namespace sluice::test
