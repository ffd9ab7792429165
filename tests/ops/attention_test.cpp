#include "ops/attention.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class AttentionOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(AttentionOps);

struct Sizes {
  int64_t batch, seq_len, heads, kv_heads, dim, v_dim, window;
  int64_t rows() const { return batch * seq_len; }
};

// Scores, mask, softmax and sum as whole matrices, one head at a time.
std::vector<double> naive(const Sizes& s, double scale, const Tensor& q, const Tensor& k, const Tensor& v) {
  const std::vector<double> qs = values_of(q), ks = values_of(k), vs = values_of(v);
  std::vector<double> o(static_cast<size_t>(s.rows() * s.heads * s.v_dim));
  const auto at = [](int64_t t, int64_t h, int64_t d, int64_t heads, int64_t dim) {
    return static_cast<size_t>((t * heads + h) * dim + d);
  };
  for (int64_t t = 0; t < s.rows(); ++t) {
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t g = h * s.kv_heads / s.heads;
      double total = 0;
      for (int64_t u = 0; u < s.rows(); ++u) {
        const bool visible = u / s.seq_len == t / s.seq_len && u <= t && (s.window == 0 || u > t - s.window);
        if (!visible) continue;
        double score = 0;
        for (int64_t d = 0; d < s.dim; ++d)
          score += qs[at(t, h, d, s.heads, s.dim)] * ks[at(u, g, d, s.kv_heads, s.dim)];
        const double weight = std::exp(scale * score);
        total += weight;
        for (int64_t d = 0; d < s.v_dim; ++d) {
          o[at(t, h, d, s.heads, s.v_dim)] += weight * vs[at(u, g, d, s.kv_heads, s.v_dim)];
        }
      }
      for (int64_t d = 0; d < s.v_dim; ++d) o[at(t, h, d, s.heads, s.v_dim)] /= total;
    }
  }
  return o;
}

// The last ones are wide, or have more tiles than one in a row; their odd numbers of rows are for the plain kernels of
// CUDA in every type.
const Sizes kSizes[] = {{1, 1, 1, 1, 1, 1, 0},      {2, 5, 4, 2, 6, 3, 0},     {1, 13, 2, 2, 8, 8, 4},
                        {3, 7, 6, 1, 4, 5, 1},      {1, 70, 4, 2, 16, 16, 0},  {2, 65, 2, 1, 64, 64, 33},
                        {1, 67, 3, 1, 100, 70, 0},  {1, 75, 1, 1, 96, 128, 7}, {3, 35, 1, 1, 136, 192, 20},
                        {1, 37, 1, 1, 256, 255, 0}, {1, 203, 1, 1, 8, 16, 100}};

TEST_P(AttentionOps, IsMaskedSoftmaxTimesValues) {
  for (const Sizes& s : kSizes) {
    TestContext tc(DType::f64, GetParam());
    const Tensor q = tc.random({s.rows(), s.heads, s.dim}, 1), k = tc.random({s.rows(), s.kv_heads, s.dim}, 2);
    const Tensor v = tc.random({s.rows(), s.kv_heads, s.v_dim}, 3), o = tc.empty({s.rows(), s.heads, s.v_dim});
    const double scale = 0.5;
    tc->run(AttentionForward{.o = o,
                             .lse = tc.empty({s.rows(), s.heads}),
                             .q = q,
                             .k = k,
                             .v = v,
                             .spec = {.seq_len = s.seq_len, .window = s.window, .scale = scale}});
    EXPECT_TRUE(close(o, naive(s, scale, q, k, v), tolerance(DType::f64, 4 * s.seq_len * s.dim)));
  }
}

// The last queries of each sequence alone, the keys before them being past, are what they are among all.
TEST_P(AttentionOps, QueriesMayComeBehindPastKeys) {
  for (const DType dtype : kStorage) {
    for (const Sizes& s : kSizes) {
      for (const int64_t past : {int64_t{1}, s.seq_len / 2, s.seq_len - 1}) {
        if (past < 1 || past >= s.seq_len) continue;
        SCOPED_TRACE(fmt::format("{} of {} keys past, window {}", past, s.seq_len, s.window));
        const auto run = [&](TestContext& tc, bool all) {
          const Tensor q = tc.random({s.rows(), s.heads, s.dim}, 1), k = tc.random({s.rows(), s.kv_heads, s.dim}, 2);
          const Tensor v = tc.random({s.rows(), s.kv_heads, s.v_dim}, 3);
          const int64_t fresh = s.seq_len - past;
          // Of tensor [B S, ..] the rows of the last queries.
          const auto last = [&](const Tensor& t) {
            const int64_t cols = t.numel() / t.dim(0);
            const Tensor rows = tc.empty({s.batch * fresh, cols}, t.dtype());
            for (int64_t b = 0; b < s.batch; ++b) {
              tc->run(Copy{.y = rows.rows(b * fresh, fresh),
                           .x = t.view({t.dim(0), cols}).rows(b * s.seq_len + past, fresh)});
            }
            return rows;
          };
          AttentionSpec spec{.seq_len = s.seq_len, .window = s.window, .scale = 1 / std::sqrt(s.dim)};
          if (all) {
            const Tensor o = tc.empty({s.rows(), s.heads, s.v_dim}),
                         lse = tc.empty({s.rows(), s.heads}, tc.accumulator());
            tc->run(AttentionForward{.o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec});
            return std::vector{last(o), last(lse)};
          }
          spec.seq_len = fresh;
          spec.past = past;
          const Tensor o = tc.empty({s.batch * fresh, s.heads, s.v_dim});
          const Tensor lse = tc.empty({s.batch * fresh, s.heads}, tc.accumulator());
          tc->run(AttentionForward{
              .o = o, .lse = lse, .q = last(q).view({s.batch * fresh, s.heads, s.dim}), .k = k, .v = v, .spec = spec});
          return std::vector{o.view({o.dim(0), s.heads * s.v_dim}), lse};
        };
        TestContext expected_context(dtype), context(dtype, GetParam());
        const std::vector<Tensor> expected = run(expected_context, true), got = run(context, false);
        for (size_t i = 0; i < got.size(); ++i) {
          EXPECT_TRUE(close(got[i], expected[i], tolerance(dtype, 4 * s.seq_len * s.dim, 2)));
        }
      }
    }
  }
}

TEST_P(AttentionOps, EqualKeysAverageTheValuesSoFar) {
  for (const DType dtype : kStorage) {
    TestContext tc(dtype, GetParam());
    const Tensor q = tc.random({4, 1, 2}, 1), k = tc.of({4, 1, 2}, dtype, {0, 0, 0, 0, 0, 0, 0, 0});
    const Tensor v = tc.of({4, 1, 1}, dtype, {4, 2, 0, 6}), o = tc.empty({4, 1, 1}),
                 lse = tc.empty({4, 1}, tc.accumulator());
    tc->run(AttentionForward{.o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = {.seq_len = 4}});
    EXPECT_TRUE(close(o, std::vector{4., 3., 2., 3.}, tolerance(dtype)));
    EXPECT_TRUE(close(lse, std::vector{0., std::log(2.), std::log(3.), std::log(4.)}, tolerance(tc.accumulator(), 4)));
  }
}

TEST_P(AttentionOps, LargeScoresDoNotOverflow) {
  for (const DType dtype : kStorage) {
    TestContext tc(dtype, GetParam());
    const Tensor q = tc.of({2, 1, 1}, dtype, {1000, 1000}), k = tc.of({2, 1, 1}, dtype, {1000, -1000});
    const Tensor v = tc.of({2, 1, 1}, dtype, {3, 5}), o = tc.empty({2, 1, 1}), lse = tc.empty({2, 1}, tc.accumulator());
    tc->run(AttentionForward{.o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = {.seq_len = 2}});
    EXPECT_TRUE(holds(o, {3, 3}));
  }
}

// Far more than exp can hold lies between any two scores: every query takes the value of the largest one it sees.
TEST_P(AttentionOps, ScoresMayGrowAndShrinkFromKeyToKey) {
  constexpr int64_t kRows = 200;
  for (const DType dtype : kStorage) {
    for (const bool grow : {true, false}) {
      TestContext tc(dtype, GetParam());
      const Tensor q = tc.empty({kRows, 1, 1}), k = tc.empty({kRows, 1, 1});
      const Tensor o = tc.empty({kRows, 1, 1}), lse = tc.empty({kRows, 1}, tc.accumulator());
      std::vector<double> ones(kRows, 1), keys(kRows), expected(kRows), most(kRows);
      for (size_t i = 0; i < keys.size(); ++i) {
        keys[i] = static_cast<double>(grow ? i : kRows - i);
        expected[i] = keys[grow ? i : 0];
        most[i] = 128 * expected[i];
      }
      assign(q, ones);
      assign(k, keys);
      tc->run(AttentionForward{
          .o = o, .lse = lse, .q = q, .k = k, .v = k, .spec = {.seq_len = kRows, .window = 0, .scale = 128}});
      EXPECT_TRUE(close(o, expected, tolerance(dtype, kRows)));
      EXPECT_TRUE(close(lse, most, tolerance(tc.accumulator(), kRows)));
    }
  }
}

// Forward and backward on views of one [T, q | k | v] matrix, as a fused projection makes them.
TEST_P(AttentionOps, AgreesWithRefOnViewsOfAFusedMatrix) {
  for (const DType dtype : kStorage) {
    for (const Sizes& s : kSizes) {
      SCOPED_TRACE(fmt::format("sequence {}, heads {} / {}, window {}", s.seq_len, s.heads, s.kv_heads, s.window));
      const auto run = [&](TestContext& tc, bool dq_dk) {
        const int64_t q_cols = s.heads * s.dim, k_cols = s.kv_heads * s.dim, v_cols = s.kv_heads * s.v_dim;
        const Tensor qkv = tc.random({s.rows(), q_cols + k_cols + v_cols}, 1), dqkv = tc.empty(qkv.shape());
        const auto q_of = [&](const Tensor& t) { return t.cols(0, q_cols).split_cols(s.heads, s.dim); };
        const auto k_of = [&](const Tensor& t) { return t.cols(q_cols, k_cols).split_cols(s.kv_heads, s.dim); };
        const auto v_of = [&](const Tensor& t) {
          return t.cols(q_cols + k_cols, v_cols).split_cols(s.kv_heads, s.v_dim);
        };
        const Tensor o = tc.empty({s.rows(), s.heads, s.v_dim}), d_o = tc.random(o.shape(), 2);
        const Tensor lse = tc.empty({s.rows(), s.heads}, tc.accumulator());
        const AttentionSpec spec{.seq_len = s.seq_len, .window = s.window, .scale = 1 / std::sqrt(s.dim)};
        tc->run(AttentionForward{.o = o, .lse = lse, .q = q_of(qkv), .k = k_of(qkv), .v = v_of(qkv), .spec = spec});
        tc->run(AttentionBackward{.dq = q_of(dqkv),
                                  .dk = k_of(dqkv),
                                  .dv = v_of(dqkv),
                                  .d_o = d_o,
                                  .o = o,
                                  .lse = lse,
                                  .q = q_of(qkv),
                                  .k = k_of(qkv),
                                  .v = v_of(qkv),
                                  .spec = spec});
        return dq_dk ? std::vector{q_of(dqkv), k_of(dqkv)} : std::vector{o, lse, v_of(dqkv)};
      };
      const int64_t reduction = 4 * s.seq_len * s.dim;
      // A library multiplies by probabilities and their gradients in the storage type.
      compare_within(dtype, tolerance(dtype, reduction, 2), [&](TestContext& tc) { return run(tc, false); });
      // The gradient of a softmax is a difference: it cancels for the first query, and for all that see one key.
      if (s.window == 1 || s.seq_len == 1) {
        TestContext tc(dtype, GetParam());
        for (const Tensor& zero : run(tc, true)) {
          for (const double x : values_of(zero)) EXPECT_NEAR(x, 0, 64 * unit_roundoff(dtype));
        }
      } else {
        compare_within(dtype, global_tolerance(dtype, reduction, 3), [&](TestContext& tc) { return run(tc, true); });
      }
    }
  }
}

TEST(AttentionGradient, GroupedHeadsAndWindows) {
  for (const Sizes& s : {Sizes{2, 5, 4, 2, 3, 2, 0}, Sizes{1, 6, 2, 1, 3, 4, 3}}) {
    TestContext tc(DType::f64);
    const Tensor q = tc.random({s.rows(), s.heads, s.dim}, 1), k = tc.random({s.rows(), s.kv_heads, s.dim}, 2);
    const Tensor v = tc.random({s.rows(), s.kv_heads, s.v_dim}, 3);
    const AttentionSpec spec{.seq_len = s.seq_len, .window = s.window, .scale = 0.6};
    Tensor o, lse;
    const MutationReport report = check_gradients(
        tc, {.variables = {{"q", q}, {"k", k}, {"v", v}},
             .forward =
                 [&](Context& ctx) {
                   o = ctx.activations().empty({s.rows(), s.heads, s.v_dim}, DType::f64);
                   lse = ctx.activations().empty({s.rows(), s.heads}, DType::f64);
                   ctx.run(AttentionForward{.o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec});
                   return std::vector{o};
                 },
             .backward =
                 [&](Context& ctx, const std::vector<Tensor>& dout) {
                   const Tensor dq = ctx.activations().empty_like(q), dk = ctx.activations().empty_like(k);
                   const Tensor dv = ctx.activations().empty_like(v);
                   ctx.run(AttentionBackward{.dq = dq,
                                             .dk = dk,
                                             .dv = dv,
                                             .d_o = dout[0],
                                             .o = o,
                                             .lse = lse,
                                             .q = q,
                                             .k = k,
                                             .v = v,
                                             .spec = spec});
                   return std::vector{dq, dk, dv};
                 }});
    EXPECT_TRUE(report.unused.empty()) << report.str();
  }
}

TEST(AttentionSpec, CountsPairs) {
  EXPECT_EQ((AttentionSpec{.seq_len = 4}.pairs()), 10);
  EXPECT_EQ((AttentionSpec{.seq_len = 4, .window = 1}.pairs()), 4);
  EXPECT_EQ((AttentionSpec{.seq_len = 4, .window = 3}.pairs()), 9);
  EXPECT_EQ((AttentionSpec{.seq_len = 4, .window = 9}.pairs()), 10);
  EXPECT_EQ((AttentionSpec{.seq_len = 1, .past = 6}.pairs()), 7);
  EXPECT_EQ((AttentionSpec{.seq_len = 3, .past = 2}.pairs()), 3 + 4 + 5);
  EXPECT_EQ((AttentionSpec{.seq_len = 3, .window = 4, .past = 2}.pairs()), 3 + 4 + 4);
  EXPECT_EQ((AttentionSpec{.seq_len = 2, .window = 4, .past = 9}.pairs()), 4 + 4);
}

TEST(AttentionCheck, RejectsWhatDoesNotFit) {
  TestContext tc(DType::f32);
  const Tensor q = tc.empty({8, 4, 6}), k = tc.empty({8, 2, 6}), v = tc.empty({8, 2, 5});
  const AttentionForward good{.o = tc.empty({8, 4, 5}), .lse = tc.empty({8, 4}), .q = q, .k = k, .v = v, .spec = {4}};
  EXPECT_NO_THROW(good.check());
  EXPECT_EQ(good.flops(), 2 * 10 * 4 * 2.0 * (6 + 5));
  AttentionForward op = good;
  op.spec.seq_len = 3;
  EXPECT_REJECTED(op, "attention_forward: 8 rows are not sequences of 3");
  op = good;
  op.k = tc.empty({8, 3, 6});
  op.v = tc.empty({8, 3, 5});
  EXPECT_REJECTED(op, "3 key/value heads do not divide 4 query heads");
  op = good;
  op.k = tc.empty({8, 2, 7});
  EXPECT_REJECTED(op, "k is f32[8, 2, 7], expected f32[8, 2, 6]");
  op = good;
  op.spec.window = -1;
  EXPECT_REJECTED(op, "the window is -1");
  op = good;
  op.spec.past = -1;
  EXPECT_REJECTED(op, "-1 past keys");
  op.spec.past = 2;
  EXPECT_REJECTED(op, "k is f32[8, 2, 6], expected f32[12, 2, 6]");
  op.k = tc.empty({12, 2, 6});
  op.v = tc.empty({12, 2, 5});
  EXPECT_NO_THROW(op.check());
  EXPECT_EQ(op.flops(), 2 * (3 + 4 + 5 + 6) * 4 * 2.0 * (6 + 5));
  const Tensor dq = tc.empty({8, 4, 6}), dk = tc.empty({12, 2, 6}), dv = tc.empty({12, 2, 5});
  EXPECT_REJECTED((AttentionBackward{dq, dk, dv, op.o, op.o, op.lse, op.q, op.k, op.v, op.spec}),
                  "2 past keys, which have no gradient");
}

}  // namespace
}  // namespace sluice::test
