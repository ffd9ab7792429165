#include "ops/attention_sink.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class AttentionSinkOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(AttentionSinkOps);

// One key of score log 3 beside a sink of log 1: three quarters of the value.
TEST_P(AttentionSinkOps, ByHand) {
  TestContext tc(DType::f64, GetParam());
  const Tensor o = tc.of({1, 2, 2}, DType::f64, {4, 8, 4, 8}), lse = tc.of({1, 2}, DType::f64, {std::log(3), 0});
  const Tensor sinks = tc.of({2}, DType::f64, {0, -1000});
  tc->run(AttentionSink{.o = o, .lse = lse, .sinks = sinks});
  EXPECT_TRUE(close(o, std::vector{3., 6., 4., 8.}, tolerance(DType::f64, 4)));
  EXPECT_TRUE(close(lse, std::vector{std::log(4), 0.}, tolerance(DType::f64, 4)));
}

TEST_P(AttentionSinkOps, AgreesWithRef) {
  for (const DType dtype : kStorage) {
    for (const Shape& shape : {Shape{0, 2, 4}, Shape{5, 3, 7}, Shape{70, 2, 64}, Shape{33, 4, 8}}) {
      compare(dtype, shape[0] + shape[2], [&](TestContext& tc) {
        const Tensor o = tc.random(shape, 1), d_o = tc.random(shape, 2), sinks = tc.random({shape[1]}, 3, 2);
        const Tensor lse = tc.random_as(tc.accumulator(), {shape[0], shape[1]}, 4, 2);
        const Tensor dsinks = tc.random_as(tc.accumulator(), {shape[1]}, 5);
        tc->run(AttentionSink{.o = o, .lse = lse, .sinks = sinks});
        tc->run(AttentionSinkBackward{.dsinks = dsinks, .d_o = d_o, .o = o, .lse = lse, .sinks = sinks});
        return std::vector{o, lse, dsinks};
      });
    }
  }
}

// Attention and its correction together against finite differences: q, k, v and the sinks.
TEST(AttentionSinkGradient, ThroughAttention) {
  TestContext tc(DType::f64);
  const Tensor q = tc.random({6, 2, 3}, 1), k = tc.random({6, 1, 3}, 2), v = tc.random({6, 1, 2}, 3);
  const Tensor sinks = tc.random({2}, 4), dsinks = tc.empty({2});
  const AttentionSpec spec{.seq_len = 3, .window = 2, .scale = 0.7};
  Tensor o, lse;
  check_gradients(
      tc, {.variables = {{"q", q}, {"k", k}, {"v", v}, {"sinks", sinks, dsinks}},
           .forward =
               [&](Context& ctx) {
                 o = ctx.activations().empty({6, 2, 2}, DType::f64);
                 lse = ctx.activations().empty({6, 2}, DType::f64);
                 ctx.run(AttentionForward{.o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec});
                 ctx.run(AttentionSink{.o = o, .lse = lse, .sinks = sinks});
                 return std::vector{o};
               },
           .backward =
               [&](Context& ctx, const std::vector<Tensor>& dout) {
                 Arena& arena = ctx.activations();
                 const Tensor dq = arena.empty_like(q), dk = arena.empty_like(k), dv = arena.empty_like(v);
                 ctx.run(AttentionSinkBackward{.dsinks = dsinks, .d_o = dout[0], .o = o, .lse = lse, .sinks = sinks});
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
}

}  // namespace
}  // namespace sluice::test
