#include "nn/moe.h"

#include <gtest/gtest.h>

#include "comm/inproc/inproc.h"
#include "module.h"

namespace sluice::test {
namespace {

constexpr int64_t kTokens = 6, kHidden = 5, kExperts = 4, kTopK = 2;

// One rank, all phases; learned and forced routing, with what can be rebuilt kept and not.
class MoePhases : public testing::TestWithParam<std::tuple<RouterKind, bool>> {};

TEST_P(MoePhases, Gradients) {
  const auto [router, rebuilt] = GetParam();
  TestContext tc(DType::f64);
  InprocWorld world(1);
  const auto ep = world.communicator(0);
  const GateSpec gate{.kind = GateKind::published, .num_experts = kExperts, .top_k = kTopK, .noise = 0.5, .seed = 5};
  Moe moe("moe",
          {.hidden = kHidden,
           .ffn = 3,
           .num_experts = kExperts,
           .top_k = kTopK,
           .seq_len = 3,
           .router = router,
           .gate = gate},
          {.ep = ep.get()}, 0.02);
  const RecomputePolicy recompute{.act = rebuilt, .experts = rebuilt, .dispatch = rebuilt};
  Program program{.variables = bind_parameters(tc, moe)};
  const Tensor x = tc.random({kTokens, kHidden}, 1), add = tc.random({kTokens, kHidden}, 2);
  const Tensor ids = tc.of({2}, DType::i64, {1, 6});
  program.variables.push_back({"x", x});
  program.variables.push_back({"add", add});
  MoeSaved saved;
  program.forward = [&](Context& ctx) {
    saved = {};
    const Tensor y = ctx.activations().empty_like(x);
    moe.route(ctx, x, ids, saved);
    moe.dispatch(ctx, saved);
    moe.compute(ctx, recompute, saved);
    moe.combine(ctx, y, add, saved);
    return std::vector{y};
  };
  program.backward = [&](Context& ctx, const std::vector<Tensor>& dout) {
    const Tensor dx = ctx.scratch().empty_like(x);
    moe.rebuild(ctx, recompute, saved);
    moe.combine_backward(ctx, dout[0], saved);
    moe.compute_backward(ctx, saved);
    moe.dispatch_backward(ctx, saved);
    moe.route_backward(ctx, dx, saved);
    moe.weight_grad(ctx, saved);
    return std::vector{dx, dout[0]};
  };
  const bool learned = router == RouterKind::softmax_topk;
  if (learned) {
    draw_routed(tc, x, kTopK, [&] {
      program.forward(*tc);
      return saved.router.probs;
    });
  }
  const MutationReport report = check_gradients(tc, program, {.equivalent = router_equivalents()});
  expect_known(report, learned ? std::vector<Unused>{} : unused_when_forced());
}

std::string name_of(const testing::TestParamInfo<std::tuple<RouterKind, bool>>& instance) {
  const auto [router, rebuilt] = instance.param;
  return std::string(router == RouterKind::forced ? "forced" : "learned") + (rebuilt ? "_rebuilt" : "");
}
INSTANTIATE_TEST_SUITE_P(Variants, MoePhases,
                         testing::Combine(testing::Values(RouterKind::softmax_topk, RouterKind::forced),
                                          testing::Bool()),
                         name_of);

// One rank of a pair whose experts are split between them; two sequences each.
std::vector<Result> run_pair(OpObserver& observer) {
  std::vector<Result> results[2];
  run_ranks(2, {.timeout_s = 20}, [&](Communicator& world) {
    TestContext tc(DType::f64);
    const auto rank = static_cast<uint64_t>(world.rank());
    Moe moe("moe", {.hidden = kHidden, .ffn = 3, .num_experts = kExperts, .top_k = kTopK, .seq_len = 3}, {.ep = &world},
            0.02);
    const RecomputePolicy recompute{.dispatch = true};
    const std::vector<Variable> variables = bind_parameters(tc, moe);
    for (const Variable& v : variables) randomize(v.gradient, 7);
    const Tensor x = tc.random({kTokens, kHidden}, 10 + rank), add = tc.random(x.shape(), 20);
    const Tensor y = tc.empty(x.shape()), dy = tc.random(x.shape(), 30 + rank), dx = tc.empty(x.shape());
    if (rank == 0) tc->add_observer(&observer);
    MoeSaved saved;
    moe.route(*tc, x, Tensor(), saved);
    moe.dispatch(*tc, saved);
    moe.compute(*tc, recompute, saved);
    moe.combine(*tc, y, add, saved);
    moe.rebuild(*tc, recompute, saved);
    moe.combine_backward(*tc, dy, saved);
    moe.compute_backward(*tc, saved);
    moe.dispatch_backward(*tc, saved);
    moe.route_backward(*tc, dx, saved);
    moe.weight_grad(*tc, saved);
    results[rank] = {{"y", values_of(y), y}, {"dx", values_of(dx), dx}};
    for (const Variable& v : variables) results[rank].push_back({v.name, values_of(v.gradient), v.gradient});
  });
  results[0].insert(results[0].end(), results[1].begin(), results[1].end());
  return results[0];
}

// Whatever breaks in one rank's operations, planning and packing of rows included, shows on one of them. That the
// unbroken pair is right is what tests/parallel proves.
TEST(MoeModule, EveryMutantOfAnExchangeShows) {
  const MutationReport report = expect_no_survivors(run_pair, {.equivalent = router_equivalents()});
  EXPECT_GT(report.ops, 30);
  EXPECT_TRUE(report.unused.empty()) << report.str();
}

}  // namespace
}  // namespace sluice::test
