#include "trainer/op_profile.h"

#include <gtest/gtest.h>

#include "device/ref/ref_backend.h"

namespace sluice {
namespace {

// Shows the meter `tokens` tokens going through a forced gate.
void route(RefBackend& backend, LoadMeter& meter, const GateSpec& gate, int64_t tokens, int decisions = 1) {
  Context ctx(backend, DType::f32);
  const ObserverScope scope(ctx, meter);
  std::vector<int32_t> experts(static_cast<size_t>(tokens * gate.top_k));
  std::vector<float> weights(experts.size());
  std::vector<int64_t> ids{0};
  for (int i = 0; i < decisions; ++i) {
    ctx.run(ForcedGate{.experts = tensor_of(experts.data(), {tokens, gate.top_k}),
                       .weights = tensor_of(weights.data(), {tokens, gate.top_k}),
                       .sample_ids = tensor_of(ids.data(), {1}),
                       .seq_len = tokens,
                       .gate = gate});
  }
}

TEST(LoadMeter, BalancedIsOne) {
  RefBackend backend;
  LoadMeter meter(backend, 8);
  route(backend, meter, {.kind = GateKind::published, .num_experts = 8, .top_k = 2}, 64, 3);
  EXPECT_DOUBLE_EQ(meter.load_factor(), 1);
  EXPECT_EQ(meter.decisions(), 3);
}

TEST(LoadMeter, SkewIsTheFullestOverTheMean) {
  RefBackend backend;
  LoadMeter meter(backend, 8);
  route(backend, meter, {.kind = GateKind::skewed, .num_experts = 8, .top_k = 2, .skew = 2.5}, 64);
  EXPECT_NEAR(meter.load_factor(), 2.5, 0.05);
}

TEST(LoadMeter, NothingSeenIsBalanced) {
  RefBackend backend;
  const LoadMeter meter(backend, 4);
  EXPECT_EQ(meter.load_factor(), 1);
}

TEST(OpProfiler, AddsUpCallsAndOrdersByTime) {
  RefBackend backend;
  Context ctx(backend, DType::f32);
  std::vector<float> big(1 << 18, 1.0F);
  std::vector<float> small(16, 1.0F);
  OpProfiler profiler(backend);
  {
    const ObserverScope scope(ctx, profiler);
    for (int i = 0; i < 3; ++i) ctx.run(Fill{.x = tensor_of(big.data(), {1 << 18}), .value = 2});
    ctx.run(Copy{.y = tensor_of(small.data(), {16}), .x = tensor_of(big.data(), {16})});
  }
  ctx.run(Fill{.x = tensor_of(small.data(), {16}), .value = 2});
  OpProfile profile = profiler.profile(1.0);
  ASSERT_EQ(profile.ops.size(), 2U);
  EXPECT_EQ(profile.ops[0].name, "fill");
  EXPECT_EQ(profile.ops[0].calls.size(), 3U) << "not the one after the scope";
  EXPECT_DOUBLE_EQ(profile.ops[0].bytes(), 3.0 * 4 * (1 << 18));
  EXPECT_GT(profile.ops[0].seconds, profile.ops[1].seconds);
  EXPECT_GT(profile.seconds_in_ops(), 0);
  EXPECT_LT(profile.seconds_in_ops(), 1);
  profile.roof = {.flops = 1e30, .bandwidth = 1e6};
  EXPECT_DOUBLE_EQ(profile.roof_seconds(), (3.0 * 4 * (1 << 18) + 2 * 4 * 16) / 1e6);
}

TEST(Roofline, WhatBeatsItIsSaidInWords) {
  EXPECT_EQ(roofline_text(2, 1, 1, 1), "50.0 %");
  EXPECT_EQ(roofline_text(1, 1, 1, 1), "100.0 %");
  EXPECT_EQ(roofline_text(1, 5.42, 0.9, 1), "cache") << "bytes would take longer than it took";
  EXPECT_EQ(roofline_text(1, 1.22, 1.22, 1), "above peak") << "arithmetic alone would";
}

// A step of two precisions: each call's FLOPs at the peak of what it multiplies.
TEST(Roofline, CallsOfOneOperationMayHaveTwoPeaks) {
  const Roof roof{.flops = 100, .bf16_flops = 200, .bandwidth = 1e9};
  const OpTotals gemm{.name = "gemm", .seconds = 4, .calls = {{.flops = 100}, {.flops = 100, .factors = DType::bf16}}};
  EXPECT_DOUBLE_EQ(gemm.arithmetic_seconds(roof), 1.5);
  EXPECT_DOUBLE_EQ(gemm.roof_seconds(roof), 1.5);
  EXPECT_DOUBLE_EQ(gemm.arithmetic_seconds({.flops = 100, .bandwidth = 1e9}), 2);
}

TEST(Roof, TheTighterBoundBinds) {
  const Roof roof{.flops = 100, .bandwidth = 10};
  EXPECT_DOUBLE_EQ(roof.seconds({.flops = 200, .bytes_read = 10, .bytes_written = 5}), 2);
  EXPECT_DOUBLE_EQ(roof.seconds({.flops = 100, .bytes_read = 10, .bytes_written = 20}), 3);
}

}  // namespace
}  // namespace sluice
