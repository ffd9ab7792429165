#include "ops/dispatch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "ops/router.h"
#include "ops/swiglu.h"
#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class DispatchOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(DispatchOps);

TEST_P(DispatchOps, PlanByHand) {
  TestContext tc(DType::f32, GetParam());
  // Experts {0, 1} on rank 0, {2, 3} on rank 1, {4, 5} on rank 2.
  const Tensor experts = tc.ints({4, 2}, {5, 0, 1, 0, 4, 5, 0, 3});
  const Tensor counts = tc.empty({3, 2}, DType::i32), send_token = tc.empty({8}, DType::i32);
  const Tensor send_row = tc.empty({4, 2}, DType::i32);
  tc->run(DispatchPlan{
      .counts = counts, .send_token = send_token, .send_row = send_row, .experts = experts, .num_experts = 6});
  EXPECT_TRUE(holds(counts, {3, 4, 1, 1, 2, 3}));
  EXPECT_TRUE(holds(send_token, {0, 1, 3, 3, 0, 2, -1, -1}));
  EXPECT_TRUE(holds(send_row, {0, 4, 1, -1, 5, -1, 2, 3}));
}

TEST_P(DispatchOps, SortByHand) {
  TestContext tc(DType::f32, GetParam());
  // This rank holds experts 2, 3 and 4; -1 and the others are no concern of it.
  const Tensor experts = tc.ints({4, 3}, {4, 2, 0, 1, -1, 5, 2, 9, 4, 4, 3, 2});
  const Tensor offsets = tc.empty({4}, DType::i32), row_token = tc.empty({9}, DType::i32);
  const Tensor row_slot = tc.empty({9}, DType::i32), slot_row = tc.empty({4, 3}, DType::i32);
  ExpertSort op{.offsets = offsets,
                .row_token = row_token,
                .row_slot = row_slot,
                .slot_row = slot_row,
                .experts = experts,
                .first = 2};
  tc->run(op);
  EXPECT_TRUE(holds(offsets, {0, 3, 4, 7}));
  EXPECT_TRUE(holds(row_token, {0, 2, 3, 3, 0, 2, 3, -1, -1}));
  EXPECT_TRUE(holds(row_slot, {1, 6, 11, 10, 0, 8, 9, -1, -1}));
  EXPECT_TRUE(holds(slot_row, {0, 4, -1, -1, -1, -1, 1, 5, -1, 2, 3, 6}));
  // Aligned to 4, with room for the pads.
  op.row_align = 4;
  op.row_token = tc.empty({12}, DType::i32);
  op.row_slot = tc.empty({12}, DType::i32);
  tc->run(op);
  EXPECT_TRUE(holds(offsets, {0, 4, 8, 12}));
  EXPECT_TRUE(holds(op.row_token, {0, 2, 3, -1, 3, -1, -1, -1, 0, 2, 3, -1}));
  EXPECT_TRUE(holds(slot_row, {0, 8, -1, -1, -1, -1, 1, 9, -1, 2, 4, 10}));
  // An empty expert gets a segment too when aligned, none when not.
  op.experts = tc.ints({4, 3}, {4, 2, 0, 1, -1, 5, 2, 9, 4, 4, -1, 2});
  tc->run(op);
  EXPECT_TRUE(holds(offsets, {0, 4, 8, 12}));
  op.row_align = 1;
  tc->run(op);
  EXPECT_TRUE(holds(offsets, {0, 3, 3, 6}));
}

TEST_P(DispatchOps, FoldedSortByHand) {
  TestContext tc(DType::f32, GetParam());
  // Six experts on two: token 0 meets expert 1 twice, token 2 expert 0 three times.
  const Tensor experts = tc.ints({3, 3}, {5, 0, 3, 4, 2, 1, 0, 2, 4});
  const Tensor offsets = tc.empty({3}, DType::i32), row_token = tc.empty({9}, DType::i32);
  const Tensor row_slot = tc.empty({9}, DType::i32), slot_row = tc.empty({3, 3}, DType::i32);
  ExpertSort op{.offsets = offsets,
                .row_token = row_token,
                .row_slot = row_slot,
                .slot_row = slot_row,
                .experts = experts,
                .folded = true};
  tc->run(op);
  EXPECT_TRUE(holds(offsets, {0, 6, 9}));
  EXPECT_TRUE(holds(row_token, {0, 1, 1, 2, 2, 2, 0, 0, 1}));
  EXPECT_TRUE(holds(row_slot, {1, 3, 4, 6, 7, 8, 0, 2, 5}));
  EXPECT_TRUE(holds(slot_row, {0, 6, 7, 1, 2, 8, 3, 4, 5}));
  op.first = 1;
  EXPECT_THROW(tc->run(op), Error);
}

TEST_P(DispatchOps, NothingToSort) {
  TestContext tc(DType::f32, GetParam());
  const Tensor offsets = tc.empty({3}, DType::i32), rows = tc.empty({2}, DType::i32), slots = tc.empty({2}, DType::i32);
  tc->run(ExpertSort{.offsets = offsets,
                     .row_token = rows,
                     .row_slot = slots,
                     .slot_row = tc.empty({0, 2}, DType::i32),
                     .experts = tc.empty({0, 2}, DType::i32)});
  EXPECT_TRUE(holds(offsets, {0, 0, 0}));
  EXPECT_TRUE(holds(rows, {-1, -1}));
  EXPECT_TRUE(holds(slots, {-1, -1}));
}

TEST_P(DispatchOps, TooManyRowsAndBadExpertsAreRefused) {
  TestContext tc(DType::f32, GetParam());
  const Tensor experts = tc.ints({2, 2}, {0, 1, 1, 0});
  EXPECT_THROW(tc->run(ExpertSort{.offsets = tc.empty({3}, DType::i32),
                                  .row_token = tc.empty({3}, DType::i32),
                                  .row_slot = tc.empty({3}, DType::i32),
                                  .slot_row = tc.empty({2, 2}, DType::i32),
                                  .experts = experts}),
               Error);
  EXPECT_THROW(tc->run(DispatchPlan{.counts = tc.empty({2, 2}, DType::i32),
                                    .send_token = tc.empty({4}, DType::i32),
                                    .send_row = tc.empty({2, 2}, DType::i32),
                                    .experts = tc.ints({2, 2}, {0, 1, 2, 0}),
                                    .num_experts = 2}),
               Error);
}

// Whatever the routing: every pair is sent and sorted once, in order, and the two directions agree.
TEST_P(DispatchOps, PlansAreConsistent) {
  for (const GateKind kind : {GateKind::published, GateKind::spread, GateKind::skewed}) {
    for (const int64_t num_ranks : {1, 2, 3, 6}) {
      TestContext tc(DType::f32, GetParam());
      constexpr int64_t kTokens = 50, kExperts = 12, kTop = 4;
      const int64_t width = std::min(kTop, num_ranks);
      const Tensor experts = tc.empty({kTokens, kTop}, DType::i32), weights = tc.empty({kTokens, kTop});
      const GateSpec gate{.kind = kind, .num_experts = kExperts, .top_k = kTop, .skew = 2, .seed = 4, .idle = 3};
      tc->run(ForcedGate{.experts = experts,
                         .weights = weights,
                         .sample_ids = tc.of({1}, DType::i64, {3}),
                         .seq_len = kTokens,
                         .gate = gate});
      const Tensor counts = tc.empty({num_ranks, 2}, DType::i32);
      const Tensor send_token = tc.empty({kTokens * width}, DType::i32);
      const Tensor send_row = tc.empty({kTokens, width}, DType::i32);
      tc->run(DispatchPlan{.counts = counts,
                           .send_token = send_token,
                           .send_row = send_row,
                           .experts = experts,
                           .num_experts = kExperts});
      const auto count = values_of(counts), token = values_of(send_token), row = values_of(send_row);
      double pairs = 0, begin = 0;
      for (int64_t r = 0; r < num_ranks; ++r) {
        const double sent = count[static_cast<size_t>(2 * r)];
        for (double i = begin + 1; i < begin + sent; ++i) {
          EXPECT_LT(token[static_cast<size_t>(i) - 1], token[static_cast<size_t>(i)]);
        }
        begin += sent;
        pairs += count[static_cast<size_t>(2 * r + 1)];
      }
      EXPECT_EQ(pairs, kTokens * kTop);
      for (size_t i = static_cast<size_t>(begin); i < token.size(); ++i) EXPECT_EQ(token[i], -1);
      double rows = 0;
      for (size_t i = 0; i < row.size(); ++i) {
        if (row[i] < 0) continue;
        ++rows;
        EXPECT_EQ(token[static_cast<size_t>(row[i])], static_cast<double>(i / static_cast<size_t>(width)));
      }
      EXPECT_EQ(rows, begin);
    }
  }
}

// Sizes that need one and several blocks, tokens that meet an expert twice, experts of other ranks, empty ones.
TEST_P(DispatchOps, PlansEqualRef) {
  for (const auto& [num_tokens, top_k, num_experts] :
       {std::tuple{1, 1, 1}, {7, 2, 300}, {700, 8, 40}, {33, 40, 50}, {1200, 3, 6}}) {
    compare(DType::f32, 1, [&, t = int64_t{num_tokens}, k = int64_t{top_k}, e = int64_t{num_experts}](TestContext& tc) {
      const Tensor experts = tc.empty({t, k}, DType::i32);
      randomize_below(experts, 1, e);
      std::vector<Tensor> results;
      for (const int64_t num_ranks : {int64_t{1}, e / 2, e}) {
        if (num_ranks == 0 || e % num_ranks != 0) continue;
        const int64_t width = std::min(k, num_ranks);
        const DispatchPlan op{.counts = tc.empty({num_ranks, 2}, DType::i32),
                              .send_token = tc.empty({t * width}, DType::i32),
                              .send_row = tc.empty({t, width}, DType::i32),
                              .experts = experts,
                              .num_experts = e};
        tc->run(op);
        results.insert(results.end(), {op.counts, op.send_token, op.send_row});
      }
      for (const int64_t row_align : {1, 4}) {
        for (const int64_t first : {int64_t{0}, e / 3}) {
          const int64_t local = e - first - e / 3, rows = t * k + local * row_align;
          const ExpertSort op{.offsets = tc.empty({local + 1}, DType::i32),
                              .row_token = tc.empty({rows}, DType::i32),
                              .row_slot = tc.empty({rows}, DType::i32),
                              .slot_row = tc.empty({t, k}, DType::i32),
                              .experts = experts,
                              .first = first,
                              .row_align = row_align};
          tc->run(op);
          results.insert(results.end(), {op.offsets, op.row_token, op.row_slot, op.slot_row});
        }
      }
      if (e % 2 == 0) {
        const ExpertSort op{.offsets = tc.empty({e / 2 + 1}, DType::i32),
                            .row_token = tc.empty({t * k}, DType::i32),
                            .row_slot = tc.empty({t * k}, DType::i32),
                            .slot_row = tc.empty({t, k}, DType::i32),
                            .experts = experts,
                            .folded = true};
        tc->run(op);
        results.insert(results.end(), {op.offsets, op.row_token, op.row_slot, op.slot_row});
      }
      return results;
    });
  }
}

// Where a refusal shows only later, what the sort leaves behind can be used until then: nothing points behind the rows
// there are.
TEST_P(DispatchOps, ARefusedSortStaysWithinItsRows) {
  TestContext tc(DType::f32, GetParam());
  const Tensor experts = tc.empty({30, 2}, DType::i32), slot_row = tc.empty({30, 2}, DType::i32);
  const Tensor rows = tc.empty({37}, DType::i32), slots = tc.empty({37}, DType::i32);
  const Tensor offsets = tc.empty({6}, DType::i32);
  randomize_below(experts, 1, 5);
  EXPECT_THROW(tc->run(ExpertSort{
                   .offsets = offsets, .row_token = rows, .row_slot = slots, .slot_row = slot_row, .experts = experts}),
               Error);
  if (tc->backend().target().platform == Platform::cpu) return;
  for (const Tensor& t : {offsets, slot_row}) {
    for (const double x : values_of(t)) EXPECT_LE(x, 37);
  }
}

TEST_P(DispatchOps, InvertIndex) {
  TestContext tc(DType::f32, GetParam());
  const Tensor inverse = tc.empty({5}, DType::i32);
  tc->run(InvertIndex{.inverse = inverse, .index = tc.ints({4}, {3, -1, 0, 4})});
  EXPECT_TRUE(holds(inverse, {2, -1, -1, 0, 3}));
  EXPECT_THROW(tc->run(InvertIndex{.inverse = inverse, .index = tc.ints({1}, {5})}), Error);
}

TEST_P(DispatchOps, GatherCopiesBitsOfAnyDtypeAndZeroesTheRest) {
  TestContext tc(DType::f32, GetParam());
  const Tensor index = tc.ints({5}, {2, -1, 0, 2, 1});
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::i32, DType::i64}) {
    const Tensor x = tc.of({3, 2}, dtype, {1, 2, 3, 4, 5, 6}), y = tc.strided({5, 2}, dtype);
    tc->run(GatherRows{.y = y, .x = x, .index = index});
    EXPECT_TRUE(holds(y, {5, 6, 0, 0, 1, 2, 5, 6, 3, 4}));
  }
  const Tensor column = tc.of({3, 1}, DType::f32, {7, 8, 9}), picked = tc.empty({5, 1});
  tc->run(GatherRows{.y = picked, .x = column, .index = index});
  EXPECT_TRUE(holds(picked, {9, 0, 7, 9, 8}));
  const Tensor x = tc.random({3, 2}, 1), y = tc.empty({1, 2});
  EXPECT_THROW(tc->run(GatherRows{.y = y, .x = x, .index = tc.ints({1}, {3})}), Error);
}

TEST_P(DispatchOps, SumAddsInTheContractsOrder) {
  TestContext tc(DType::f32, GetParam());
  // In f32, (1e8 + 1) - 1e8 = 0 and (1e8 - 1e8) + 1 = 1.
  const Tensor x = tc.of({3, 1}, DType::f32, {1e8, 1, -1e8}), y = tc.empty({3, 1});
  const Tensor index = tc.ints({3, 3}, {0, 1, 2, 0, 2, 1, -1, 1, -1});
  tc->run(SumRows{.y = y, .x = x, .index = index});
  EXPECT_TRUE(holds(y, {0, 1, 1}));
  // `add` comes last: (1 + -1e8) + 1e8 is 0, were it first the result would be 1.
  tc->run(
      SumRows{.y = y.rows(0, 1), .x = x, .index = tc.ints({1, 2}, {1, 2}), .add = tc.of({1, 1}, DType::f32, {1e8})});
  EXPECT_TRUE(holds(y.rows(0, 1), {0}));
  EXPECT_THROW(tc->run(SumRows{.y = y, .x = x, .index = tc.ints({3, 1}, {0, 1, 3})}), Error);
}

TEST_P(DispatchOps, SumEqualsRefBitForBit) {
  for (const DType dtype : kStorage) {
    for (const int64_t dim : {1, 7, 64, 200}) {
      TestContext expected(dtype), got(dtype, GetParam());
      const auto run = [&](TestContext& tc, bool add, bool in_place) {
        const Tensor x = tc.random({40, dim}, 1), index = tc.empty({90, 4}, DType::i32);
        std::vector<double> at = random_values(90 * 4, 2, 30);
        for (double& i : at) i = std::floor(i);  // half of them negative
        assign(index, at);
        const Tensor past = tc.random({90, dim}, 3), y = in_place ? past : tc.strided({90, dim}, dtype);
        tc->run(SumRows{.y = y, .x = x, .index = index, .add = add ? past : Tensor()});
        return y;
      };
      for (const auto& [add, in_place] : {std::pair{false, false}, {true, false}, {true, true}}) {
        EXPECT_TRUE(same(run(got, add, in_place), run(expected, add, in_place)));
      }
    }
  }
}

// Rows enough for many blocks, of widths that make pieces of every size.
TEST_P(DispatchOps, GatherEqualsRefBitForBit) {
  const auto gather = [](TestContext& tc, DType dtype, int64_t rows, int64_t width) {
    const Tensor x = tc.random_as(dtype, {50, width}, 1), index = tc.empty({rows}, DType::i32);
    std::vector<double> at = random_values(rows, 2, 40);
    for (double& i : at) i = std::floor(i);
    assign(index, at);
    const Tensor y = tc.empty({rows, width}, dtype);
    tc->run(GatherRows{.y = y, .x = x, .index = index});
    return y;
  };
  for (const auto& [dtype, rows, width] : {std::tuple{DType::f32, 17000, 64},
                                           {DType::bf16, 100, 7},
                                           {DType::bf16, 100, 6},
                                           {DType::bf16, 100, 4},
                                           {DType::bf16, 100, 1200},
                                           {DType::f64, 70, 3},
                                           {DType::f32, 70, 1}}) {
    TestContext expected(dtype), got(dtype, GetParam());
    EXPECT_TRUE(same(gather(got, dtype, rows, width), gather(expected, dtype, rows, width)));
  }
}

// <gather(x), y> = <x, sum(y)>: with the two index tensors of a sort, each is the other's transpose.
TEST_P(DispatchOps, GatherAndSumAreAdjoint) {
  TestContext tc(DType::f64, GetParam());
  constexpr int64_t kTokens = 20, kTop = 3, kExperts = 5, kDim = 7, kRows = kTokens * kTop;
  const Tensor experts = tc.empty({kTokens, kTop}, DType::i32), slot_row = tc.empty({kTokens, kTop}, DType::i32);
  const Tensor row_token = tc.empty({kRows}, DType::i32), row_slot = tc.empty({kRows}, DType::i32);
  randomize_below(experts, 1, kExperts + 2);
  tc->run(ExpertSort{.offsets = tc.empty({kExperts + 1}, DType::i32),
                     .row_token = row_token,
                     .row_slot = row_slot,
                     .slot_row = slot_row,
                     .experts = experts});
  const Tensor x = tc.random({kTokens, kDim}, 2), y = tc.random({kRows, kDim}, 3);
  const Tensor gx = tc.empty({kRows, kDim}), sy = tc.empty({kTokens, kDim});
  tc->run(GatherRows{.y = gx, .x = x, .index = row_token});
  tc->run(SumRows{.y = sy, .x = y, .index = slot_row});
  const auto inner = [](const Tensor& a, const Tensor& b) {
    const std::vector<double> u = values_of(a), v = values_of(b);
    double sum = 0;
    for (size_t i = 0; i < u.size(); ++i) sum += u[i] * v[i];
    return sum;
  };
  EXPECT_NE(inner(gx, y), 0);
  EXPECT_NEAR(inner(gx, y), inner(x, sy), 1e-12);
}

// Tokens to expert rows and back, with a factor per row in between so that rows cannot be confused.
TEST(DispatchGradient, SortGatherSum) {
  TestContext tc(DType::f64);
  constexpr int64_t kTokens = 5, kTop = 2, kExperts = 4, kDim = 3, kRows = kTokens * kTop;
  const Tensor x = tc.random({kTokens, 2 * kDim}, 1), weights = tc.random({kTokens, kTop}, 2);
  const Tensor past = tc.random({kTokens, kDim}, 3);
  // A token whose second expert is elsewhere, an expert without tokens.
  const Tensor experts = tc.ints({kTokens, kTop}, {0, 3, 3, 1, 1, 7, 0, 1, 3, 0});
  struct {
    Tensor offsets, row_token, row_slot, slot_row, slot_of, rows, weight;
  } saved;
  const Program program{
      .variables = {{"x", x}, {"weights", weights}, {"past", past}},
      .forward =
          [&](Context& ctx) {
            Arena& arena = ctx.activations();
            saved = {arena.empty({kExperts + 1}, DType::i32), arena.empty({kRows}, DType::i32),
                     arena.empty({kRows}, DType::i32),        arena.empty({kTokens, kTop}, DType::i32),
                     arena.empty({kRows}, DType::i32),        arena.empty({kRows, 2 * kDim}, DType::f64),
                     arena.empty({kRows}, DType::f64)};
            ctx.run(ExpertSort{.offsets = saved.offsets,
                               .row_token = saved.row_token,
                               .row_slot = saved.row_slot,
                               .slot_row = saved.slot_row,
                               .experts = experts});
            ctx.run(InvertIndex{.inverse = saved.slot_of, .index = saved.row_slot});
            ctx.run(GatherRows{.y = saved.rows, .x = x, .index = saved.row_token});
            ctx.run(
                GatherRows{.y = saved.weight.view({kRows, 1}), .x = weights.view({kRows, 1}), .index = saved.row_slot});
            const Tensor h = arena.empty({kRows, kDim}, DType::f64), y = arena.empty({kTokens, kDim}, DType::f64);
            ctx.run(SwigluForward{.h = h, .gate_up = saved.rows, .weight = saved.weight});
            ctx.run(SumRows{.y = y, .x = h, .index = saved.slot_row, .add = past});
            return std::vector{y};
          },
      .backward =
          [&](Context& ctx, const std::vector<Tensor>& dout) {
            Arena& arena = ctx.activations();
            const Tensor dh = arena.empty({kRows, kDim}, DType::f64), drows = arena.empty_like(saved.rows);
            const Tensor dweight = arena.empty({kRows}, DType::f64), dweights = arena.empty_like(weights);
            const Tensor dx = arena.empty_like(x);
            ctx.run(GatherRows{.y = dh, .x = dout[0], .index = saved.row_token});
            ctx.run(SwigluBackward{
                .dgate_up = drows, .dweight = dweight, .dh = dh, .gate_up = saved.rows, .weight = saved.weight});
            ctx.run(GatherRows{.y = dweights.view({kRows, 1}), .x = dweight.view({kRows, 1}), .index = saved.slot_of});
            ctx.run(SumRows{.y = dx, .x = drows, .index = saved.slot_row});
            return std::vector{dx, dweights, dout[0]};
          }};
  const MutationReport report = check_gradients(tc, program);
  EXPECT_EQ(report.unused, std::vector<std::string>{"0 expert_sort.offsets: no later operation reads it"});
}

TEST(DispatchCheck, RejectsWhatDoesNotFit) {
  TestContext tc(DType::f32);
  const Tensor experts = tc.empty({4, 2}, DType::i32), counts = tc.empty({3, 2}, DType::i32);
  const DispatchPlan plan{.counts = counts,
                          .send_token = tc.empty({8}, DType::i32),
                          .send_row = tc.empty({4, 2}, DType::i32),
                          .experts = experts,
                          .num_experts = 6};
  EXPECT_NO_THROW(plan.check());
  DispatchPlan op = plan;
  op.num_experts = 7;
  EXPECT_REJECTED(op, "dispatch_plan: 7 experts on 3 ranks");
  op = plan;
  op.send_token = tc.empty({7}, DType::i32);
  EXPECT_REJECTED(op, "send_token is i32[7], expected i32[8]");
  EXPECT_REJECTED((GatherRows{.y = tc.empty({3, 2}), .x = tc.empty({5, 2}), .index = tc.empty({4}, DType::i32)}),
                  "gather_rows: index is i32[4], expected i32[3]");
  EXPECT_REJECTED((SumRows{.y = tc.empty({3, 2}), .x = tc.empty({5, 3}), .index = tc.empty({3, 1}, DType::i32)}),
                  "sum_rows: x is f32[5, 3], expected f32[5, 2]");
}

}  // namespace
}  // namespace sluice::test
