#include "nn/grouped_query_attention.h"

#include <gtest/gtest.h>

#include "module.h"

namespace sluice::test {
namespace {

// Two sequences; groups of two query heads; norms of q and k, nothing, or biases and sinks; windowed or not; q and k
// kept or rebuilt.
enum class Kind : uint8_t { normed, plain, sinks };
class GroupedQueryModule : public testing::TestWithParam<std::tuple<Kind, bool, bool>> {};

TEST_P(GroupedQueryModule, Gradients) {
  const auto [kind, window, rebuilt] = GetParam();
  const bool qk_norm = kind == Kind::normed, sinks = kind == Kind::sinks;
  TestContext tc(DType::f64);
  const GroupedQueryConfig config{.hidden = 7,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .head_dim = 6,
                                  .seq_len = 3,
                                  .window = window ? 2 : 0,
                                  .qk_norm = qk_norm,
                                  .bias = sinks,
                                  .sinks = sinks};
  GroupedQueryAttention attention("attention", config, 1e-3, 0.02);
  const RecomputePolicy recompute{.qk_rope = rebuilt};
  Program program{.variables = bind_parameters(tc, attention)};
  EXPECT_EQ(program.variables.size(), qk_norm ? 4U : sinks ? 5U : 2U);
  const Tensor x = tc.random({2 * config.seq_len, config.hidden}, 1);
  const Tensor cos_sin = tc.empty({config.seq_len, config.head_dim});
  tc->run(RopeTable{.cos_sin = cos_sin, .theta = 100});
  program.variables.push_back({"x", x});
  GroupedQuerySaved saved;
  program.forward = [&](Context& ctx) {
    saved = {};
    return std::vector{attention.forward(ctx, x, cos_sin, recompute, saved)};
  };
  program.backward = [&](Context& ctx, const std::vector<Tensor>& dout) {
    const Tensor dx = ctx.scratch().empty_like(x);
    attention.rebuild(ctx, cos_sin, recompute, saved);
    attention.backward(ctx, dx, dout[0], cos_sin, saved);
    attention.weight_grad(ctx, saved);
    return std::vector{dx};
  };
  const MutationReport report = check_gradients(tc, program);
  expect_known(report, rebuilt ? unused_when_rebuilding() : std::vector<Unused>{});
}

std::string name_of(const testing::TestParamInfo<std::tuple<Kind, bool, bool>>& instance) {
  const auto [kind, window, rebuilt] = instance.param;
  return std::string(kind == Kind::normed  ? "normed"
                     : kind == Kind::plain ? "plain"
                                           : "sinks") +
         (window ? "_window" : "") + (rebuilt ? "_rebuilt" : "");
}
INSTANTIATE_TEST_SUITE_P(Variants, GroupedQueryModule,
                         testing::Combine(testing::Values(Kind::normed, Kind::plain, Kind::sinks), testing::Bool(),
                                          testing::Bool()),
                         name_of);

}  // namespace
}  // namespace sluice::test
