#include "nn/latent_attention.h"

#include <gtest/gtest.h>

#include "module.h"

namespace sluice::test {
namespace {

// Two sequences; with and without a query latent, up-projections kept or rebuilt.
class LatentModule : public testing::TestWithParam<std::tuple<bool, bool>> {};

TEST_P(LatentModule, Gradients) {
  const auto [latent_queries, rebuilt] = GetParam();
  TestContext tc(DType::f64);
  const LatentConfig config{.hidden = 7,
                            .heads = 3,
                            .q_lora = latent_queries ? 5 : 0,
                            .kv_lora = 4,
                            .nope_dim = 3,
                            .rope_dim = 4,
                            .v_dim = 2,
                            .seq_len = 3,
                            .scale_factor = 1.3,
                            .latent_eps = 1e-3};
  LatentAttention attention("attention", config, 0, 0.02);
  const RecomputePolicy recompute{.mla_up = rebuilt};
  Program program{.variables = bind_parameters(tc, attention)};
  EXPECT_EQ(program.variables.size(), latent_queries ? 6U : 4U);
  const Tensor x = tc.random({2 * config.seq_len, config.hidden}, 1);
  const Tensor cos_sin = tc.empty({config.seq_len, config.rope_dim});
  tc->run(RopeTable{.cos_sin = cos_sin, .theta = 100});
  program.variables.push_back({"x", x});
  LatentSaved saved;
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

INSTANTIATE_TEST_SUITE_P(Variants, LatentModule, testing::Combine(testing::Bool(), testing::Bool()),
                         [](const auto& instance) {
                           return std::string(std::get<0>(instance.param) ? "latent" : "direct") +
                                  (std::get<1>(instance.param) ? "_rebuilt" : "");
                         });

}  // namespace
}  // namespace sluice::test
