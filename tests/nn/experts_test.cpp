#include "nn/experts.h"

#include <gtest/gtest.h>

#include "module.h"

namespace sluice::test {
namespace {

// Seven rows for three experts, of which the second has none; the routing weights have gradients of their own. As they
// are, and with biases and the clamped gate.
class ExpertsModule : public testing::TestWithParam<bool> {};

TEST_P(ExpertsModule, GradientsKeptAndRebuilt) {
  for (const RecomputePolicy& recompute :
       {RecomputePolicy{}, RecomputePolicy{.act = true}, RecomputePolicy{.experts = true}}) {
    SCOPED_TRACE(recompute.act ? "act" : recompute.experts ? "experts" : "none");
    TestContext tc(DType::f64);
    MoeConfig config{.hidden = 5, .ffn = 3, .num_experts = 3, .top_k = 2};
    config.expert_bias = GetParam();
    if (GetParam()) config.gate_form = {.limit = 0.7, .alpha = 1.702};
    Experts experts("experts", config, 0, 1, 0.02);
    Program program{.variables = bind_parameters(tc, experts)};
    const Tensor x = tc.random({7, 5}, 1), weight = tc.random({7}, 2);
    program.variables.push_back({"x", x});
    program.variables.push_back({"weight", weight});
    RoutingRecord record;
    record.expert_rows = 7;
    record.offsets = tc.ints({4}, {0, 3, 3, 7});
    record.row_weight = weight;
    ExpertsSaved saved;
    program.forward = [&](Context& ctx) {
      saved = {};
      return std::vector{experts.forward(ctx, x, record, recompute, saved)};
    };
    program.backward = [&](Context& ctx, const std::vector<Tensor>& dout) {
      experts.rebuild(ctx, record, recompute, saved);
      Tensor dweight;
      const Tensor dx = experts.backward(ctx, dout[0], record, saved, dweight);
      experts.weight_grad(ctx, saved);
      return std::vector{dx, dweight};
    };
    const MutationReport report = check_gradients(tc, program);
    EXPECT_TRUE(report.unused.empty()) << report.str();
    // An expert without rows keeps what its gradient held.
    for (const Result& result : run_program(tc, program)) {
      if (result.name.find("gate_up") == std::string::npos) continue;
      const auto each = std::ssize(result.values) / 3;
      const auto begin = result.values.begin() + each, end = begin + each;
      EXPECT_TRUE(std::all_of(begin, end, [](double g) { return g == 0; }));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, ExpertsModule, testing::Bool(),
                         [](const auto& instance) { return instance.param ? "biased" : "plain"; });

}  // namespace
}  // namespace sluice::test
