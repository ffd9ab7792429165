#include "ops/mla.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class MlaOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(MlaOps);

// T rows of sequences of S, n heads.
struct Sizes {
  int64_t rows, seq_len, heads, nope, rotary, value;
};

struct Tensors {
  Tensor q, k, v, kv, k_pe, cos_sin;
};

Tensors make(TestContext& tc, const Sizes& s) {
  const Tensors t{.q = tc.random({s.rows, s.heads, s.nope + s.rotary}, 1),
                  .k = tc.empty({s.rows, s.heads, s.nope + s.rotary}),
                  .v = tc.empty({s.rows, s.heads, s.value}),
                  .kv = tc.random({s.rows, s.heads, s.nope + s.value}, 2),
                  .k_pe = tc.strided({s.rows, s.rotary}, tc.dtype()),
                  .cos_sin = tc.empty({s.seq_len, s.rotary}, tc.accumulator())};
  randomize(t.k_pe, 3);
  tc->run(RopeTable{.cos_sin = t.cos_sin, .theta = 100});
  return t;
}

TEST_P(MlaOps, ByHand) {
  TestContext tc(DType::f64, GetParam());
  const Tensor table = tc.empty({2, 2});
  tc->run(RopeTable{.cos_sin = table, .theta = 7});
  // Two tokens of one sequence, two heads of one column each beside the rotary pair.
  const Tensor q = tc.of({2, 2, 3}, DType::f64, {1, 1, 0, 2, 0, 1, 3, 1, 0, 4, 0, 1});
  const Tensor kv = tc.of({2, 2, 2}, DType::f64, {5, 50, 6, 60, 7, 70, 8, 80});
  const Tensor k_pe = tc.of({2, 2}, DType::f64, {1, 0, 1, 0}), k = tc.empty({2, 2, 3}), v = tc.empty({2, 2, 1});
  tc->run(MlaHeads{.q = q, .k = k, .v = v, .kv = kv, .k_pe = k_pe, .cos_sin = table});
  const double c = std::cos(1), s = std::sin(1);
  EXPECT_TRUE(close(q, std::vector{1., 1., 0., 2., 0., 1., 3., c, s, 4., -s, c}, tolerance(DType::f64)));
  EXPECT_TRUE(close(k, std::vector{5., 1., 0., 6., 1., 0., 7., c, s, 8., c, s}, tolerance(DType::f64)));
  EXPECT_TRUE(holds(v, {50, 60, 70, 80}));
}

TEST_P(MlaOps, PairsAreNeighbours) {
  TestContext tc(DType::f64, GetParam());
  const Tensors t = make(tc, {3, 3, 1, 0, 4, 1});
  const std::vector<double> before = values_of(t.k_pe), table = values_of(t.cos_sin);
  tc->run(MlaHeads{.q = t.q, .k = t.k, .v = t.v, .kv = t.kv, .k_pe = t.k_pe, .cos_sin = t.cos_sin});
  const std::vector<double> after = values_of(t.k);
  // The last token: pair (2, 3) turns by its second angle.
  const double c = table[2 * 4 + 1], s = table[2 * 4 + 3], first = before[2 * 4 + 2], second = before[2 * 4 + 3];
  EXPECT_NEAR(after[2 * 4 + 2], first * c - second * s, 1e-15);
  EXPECT_NEAR(after[2 * 4 + 3], second * c + first * s, 1e-15);
}

TEST_P(MlaOps, AgreesWithRef) {
  for (const DType dtype : kStorage) {
    for (const Sizes& s : {Sizes{0, 4, 2, 2, 2, 2}, Sizes{4, 2, 1, 0, 2, 1}, Sizes{10, 5, 3, 5, 6, 7},
                           Sizes{24, 12, 4, 16, 8, 16}, Sizes{6, 3, 2, 128, 64, 128}}) {
      compare(dtype, s.heads, [&](TestContext& tc) {
        const Tensors t = make(tc, s);
        tc->run(MlaHeads{.q = t.q, .k = t.k, .v = t.v, .kv = t.kv, .k_pe = t.k_pe, .cos_sin = t.cos_sin});
        const Tensor dq = tc.random(t.q.shape(), 4), dk = tc.random(t.k.shape(), 5), dv = tc.random(t.v.shape(), 6);
        const Tensor dkv = tc.empty(t.kv.shape()), dk_pe = tc.strided(t.k_pe.shape(), dtype);
        tc->run(MlaHeadsBackward{.dq = dq, .dkv = dkv, .dk_pe = dk_pe, .dk = dk, .dv = dv, .cos_sin = t.cos_sin});
        return std::vector{t.q, t.k, t.v, dq, dkv, dk_pe};
      });
    }
  }
}

TEST(MlaGradient, OfEveryInput) {
  TestContext tc(DType::f64);
  const Sizes s{4, 2, 3, 2, 4, 3};
  const Tensors t = make(tc, s);
  const MutationReport report = check_gradients(
      tc, {.variables = {{"q", t.q}, {"kv", t.kv}, {"k_pe", t.k_pe}},
           .forward =
               [&](Context& ctx) {
                 Arena& arena = ctx.activations();
                 const Tensor q = arena.empty_like(t.q), k = arena.empty_like(t.k), v = arena.empty_like(t.v);
                 ctx.run(Copy{.y = q, .x = t.q});
                 ctx.run(MlaHeads{.q = q, .k = k, .v = v, .kv = t.kv, .k_pe = t.k_pe, .cos_sin = t.cos_sin});
                 return std::vector{q, k, v};
               },
           .backward =
               [&](Context& ctx, const std::vector<Tensor>& dout) {
                 Arena& arena = ctx.activations();
                 const Tensor dq = arena.empty_like(t.q), dkv = arena.empty_like(t.kv);
                 const Tensor dk_pe = arena.empty(t.k_pe.shape(), DType::f64);
                 ctx.run(Copy{.y = dq, .x = dout[0]});
                 ctx.run(MlaHeadsBackward{
                     .dq = dq, .dkv = dkv, .dk_pe = dk_pe, .dk = dout[1], .dv = dout[2], .cos_sin = t.cos_sin});
                 return std::vector{dq, dkv, dk_pe};
               }});
  EXPECT_TRUE(report.unused.empty()) << report.str();
}

TEST(MlaCheck, RejectsWhatDoesNotFit) {
  TestContext tc(DType::f32);
  const Tensors t = make(tc, {4, 2, 3, 2, 4, 5});
  MlaHeads op{.q = t.q, .k = t.k, .v = t.v, .kv = t.kv, .k_pe = t.k_pe, .cos_sin = t.cos_sin};
  EXPECT_NO_THROW(op.check());
  op.kv = tc.empty({4, 3, 6});
  EXPECT_REJECTED(op, "mla_heads: kv is f32[4, 3, 6], expected f32[4, 3, 7]");
  op.kv = t.kv;
  op.k_pe = tc.empty({4, 3});
  EXPECT_REJECTED(op, "mla_heads: k_pe f32[4, 3] does not fit q f32[4, 3, 6]");
  op.k_pe = t.k_pe;
  op.cos_sin = tc.empty({2, 6});
  EXPECT_REJECTED(op, "cos_sin is f32[2, 6], expected f32[2, 4]");
}

}  // namespace
}  // namespace sluice::test
