#include "nn/moe.h"

#include <gtest/gtest.h>

#include <cmath>

#include "comm/inproc/inproc.h"
#include "module.h"
#include "support/compare.h"
#include "support/tolerance.h"

namespace sluice::test {
namespace {

constexpr int64_t kTokens = 6, kHidden = 5, kExperts = 4, kTopK = 2;

// Slots of tokens that meet the same of `local` experts as an earlier slot.
int64_t repeated(const Tensor& experts, int64_t local) {
  const std::vector<double> values = values_of(experts);
  int64_t count = 0;
  for (int64_t i = 0; i < std::ssize(values); ++i) {
    const auto expert = [&](int64_t at) { return static_cast<int64_t>(values[static_cast<size_t>(at)]) % local; };
    for (int64_t j = i / kTopK * kTopK; j < i; ++j) count += expert(j) == expert(i) ? 1 : 0;
  }
  return count;
}

// One rank, all phases; learned and forced routing, with what can be rebuilt kept and not, with all experts and as one
// of two ranks' shard.
class MoePhases : public testing::TestWithParam<std::tuple<RouterKind, bool, int>> {};

TEST_P(MoePhases, Gradients) {
  const auto [router, rebuilt, shard] = GetParam();
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
           .gate = gate,
           .local_shard = shard},
          *ep, 0.02);
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
  program.forward(*tc);
  EXPECT_EQ(repeated(saved.record.experts, kExperts / shard) > 0, shard > 1);
}

std::string name_of(const testing::TestParamInfo<std::tuple<RouterKind, bool, int>>& instance) {
  const auto [router, rebuilt, shard] = instance.param;
  return std::string(router == RouterKind::forced ? "forced" : "learned") + (rebuilt ? "_rebuilt" : "") +
         (shard > 1 ? "_local_shard" : "");
}
INSTANTIATE_TEST_SUITE_P(Variants, MoePhases,
                         testing::Combine(testing::Values(RouterKind::softmax_topk, RouterKind::forced),
                                          testing::Bool(), testing::Values(1, 2)),
                         name_of);

double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// y = sum over slots of weight * MLP of expert (e mod E/N), written out.
TEST(LocalShard, EqualsAnExplicitComputation) {
  constexpr int64_t kFfn = 3, kLocal = 2, kMany = 6, kSlots = 3;
  for (const BackendCase& backend : {ref_backend(), cpu_backend(2)}) {
    TestContext tc(DType::f32, backend);
    InprocWorld world(1);
    const auto ep = world.communicator(0);
    Moe moe("moe",
            {.hidden = kHidden,
             .ffn = kFfn,
             .num_experts = kMany,
             .top_k = kSlots,
             .seq_len = 3,
             .local_shard = kMany / kLocal},
            *ep, 0.02);
    const std::vector<Variable> parameters = bind_parameters(tc, moe);
    ASSERT_EQ(parameters.size(), 3U);
    EXPECT_EQ(parameters[1].value.shape(), (Shape{kLocal, 2 * kFfn, kHidden}));
    EXPECT_EQ(parameters[2].value.shape(), (Shape{kLocal, kHidden, kFfn}));
    const Tensor x = tc.random({kTokens, kHidden}, 1), y = tc.empty(x.shape());
    MoeSaved saved;
    moe.route(*tc, x, Tensor(), saved);
    moe.dispatch(*tc, saved);
    moe.compute(*tc, {}, saved);
    moe.combine(*tc, y, Tensor(), saved);

    const auto in = values_of(x), gate_up = values_of(parameters[1].value), down = values_of(parameters[2].value);
    const auto experts = values_of(saved.record.experts), weights = values_of(saved.record.weights);
    std::vector<double> expected(in.size());
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t slot = t * kSlots; slot < (t + 1) * kSlots; ++slot) {
        const int64_t e = static_cast<int64_t>(experts[static_cast<size_t>(slot)]) % kLocal;
        const double* row = &in[static_cast<size_t>(t * kHidden)];
        double h[kFfn];
        for (int64_t f = 0; f < kFfn; ++f) {
          const double gate = dot(row, &gate_up[static_cast<size_t>((2 * e * kFfn + f) * kHidden)], kHidden);
          const double up = dot(row, &gate_up[static_cast<size_t>(((2 * e + 1) * kFfn + f) * kHidden)], kHidden);
          h[f] = gate / (1 + std::exp(-gate)) * up;
        }
        for (int64_t d = 0; d < kHidden; ++d) {
          expected[static_cast<size_t>(t * kHidden + d)] +=
              weights[static_cast<size_t>(slot)] * dot(h, &down[static_cast<size_t>((e * kHidden + d) * kFfn)], kFfn);
        }
      }
    }
    EXPECT_GT(repeated(saved.record.experts, kLocal), 0);
    EXPECT_TRUE(close(values_of(y), expected, tolerance(DType::f32, kHidden + kFfn + kSlots), kTokens * kHidden));
  }
}

// The experts of each of N ranks with as many tokens get as many rows as the shard's: of the published gate and of the
// one that spreads.
TEST(LocalShard, ItsExpertsGetTheRowsOfARank) {
  constexpr int64_t kMany = 16, kSlots = 4, kSequence = 32;
  constexpr int kRanks = 4;
  for (const GateKind kind : {GateKind::published, GateKind::spread}) {
    const GateSpec gate{.kind = kind, .num_experts = kMany, .top_k = kSlots, .seed = 3};
    const auto offsets = [&](Communicator& ep, int64_t shard) {
      TestContext tc(DType::f32);
      Moe moe("moe",
              {.hidden = kHidden,
               .ffn = 3,
               .num_experts = kMany,
               .top_k = kSlots,
               .seq_len = kSequence,
               .router = RouterKind::forced,
               .gate = gate,
               .local_shard = shard},
              ep, 0.02);
      MoeSaved saved;
      const Tensor ids = tc.of({2}, DType::i64, {2.0 * ep.rank(), 2.0 * ep.rank() + 1});
      moe.route(*tc, tc.random({2 * kSequence, kHidden}, 1), ids, saved);
      return values_of(saved.record.offsets);
    };
    InprocWorld world(1);
    const std::vector<double> alone = offsets(*world.communicator(0), kRanks);
    EXPECT_EQ(alone, (std::vector<double>{0, 64, 128, 192, 256}));
    run_ranks(kRanks, {.timeout_s = 20}, [&](Communicator& ep) { EXPECT_EQ(offsets(ep, 1), alone); });
  }
}

// One rank of a pair whose experts are split between them; two sequences each.
std::vector<Result> run_pair(OpObserver& observer) {
  std::vector<Result> results[2];
  run_ranks(2, {.timeout_s = 20}, [&](Communicator& world) {
    TestContext tc(DType::f64);
    const auto rank = static_cast<uint64_t>(world.rank());
    Moe moe("moe", {.hidden = kHidden, .ffn = 3, .num_experts = kExperts, .top_k = kTopK, .seq_len = 3}, world, 0.02);
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
