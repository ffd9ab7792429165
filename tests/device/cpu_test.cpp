// Products, attention and the head of the fast path against ref, in f32, at sizes that reach every edge of its tiles
// and on every instruction set it is compiled for; and the same bits at any number of threads. Other operations:
// cpu_rows_test.cpp.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "device/cpu/bf16_dot.h"
#include "device/cpu/cpu_backend.h"
#include "device/cpu/peak.h"
#include "device/cpu_cases.h"
#include "support/compare.h"
#include "support/only_target.h"
#include "support/test_context.h"

namespace sluice {
namespace {

using namespace test;

using Case = CpuCase;

Case gemm(int64_t m, int64_t n, int64_t k, bool trans_a, bool trans_b, bool accumulate) {
  const auto name =
      fmt::format("gemm_{}_{}_{}{}{}{}", m, n, k, trans_a ? "_ta" : "", trans_b ? "_tb" : "", accumulate ? "_acc" : "");
  return {name, k, [=](TestContext& tc) {
            const Tensor a = strided_random(tc, trans_a ? Shape{k, m} : Shape{m, k}, 1);
            const Tensor b = strided_random(tc, trans_b ? Shape{n, k} : Shape{k, n}, 2);
            const Tensor c = strided_random(tc, {m, n}, 3);
            tc->run(Gemm{.c = c, .a = a, .b = b, .trans_a = trans_a, .trans_b = trans_b, .accumulate = accumulate});
            return std::vector{c};
          }};
}

Case grouped(bool trans_w) {
  return {trans_w ? "grouped_gemm_tw" : "grouped_gemm", 70, [=](TestContext& tc) {
            const int64_t rows = 1300, n = 45, k = 70;
            const Tensor offsets = tc.ints({6}, {3, 3, 20, 1200, 1200, 1290});
            const Tensor x = strided_random(tc, {rows, k}, 1);
            const Tensor w = tc.random(trans_w ? Shape{5, n, k} : Shape{5, k, n}, 2);
            const Tensor y = strided_random(tc, {rows, n}, 3);
            tc->run(GroupedGemm{.y = y, .x = x, .w = w, .offsets = offsets, .trans_w = trans_w});
            return std::vector{y};
          }};
}

// Experts of a few tokens: with one row, none and two.
Case grouped_few(bool trans_w) {
  return {trans_w ? "grouped_gemm_few_tw" : "grouped_gemm_few", 70, [=](TestContext& tc) {
            const int64_t rows = 5, n = 45, k = 70;
            const Tensor offsets = tc.ints({6}, {0, 1, 1, 3, 4, 5});
            const Tensor x = strided_random(tc, {rows, k}, 1);
            const Tensor w = tc.random(trans_w ? Shape{5, n, k} : Shape{5, k, n}, 2);
            const Tensor y = strided_random(tc, {rows, n}, 3);
            tc->run(GroupedGemm{.y = y, .x = x, .w = w, .offsets = offsets, .trans_w = trans_w});
            return std::vector{y};
          }};
}

Case grouped_weight() {
  return {"grouped_gemm_weight", 900, [](TestContext& tc) {
            const Tensor offsets = tc.ints({5}, {2, 2, 300, 317, 1000});
            const Tensor dy = strided_random(tc, {1010, 37}, 1);
            const Tensor x = strided_random(tc, {1010, 50}, 2);
            const Tensor dw = tc.random({4, 37, 50}, 3);
            tc->run(GroupedGemmWeight{.dw = dw, .dy = dy, .x = x, .offsets = offsets});
            return std::vector{dw};
          }};
}

Case attention(int64_t seq, int64_t window, int64_t heads, int64_t kv_heads, int64_t dim, int64_t v_dim) {
  const auto name = fmt::format("attention_{}_{}_{}_{}_{}_{}", seq, window, heads, kv_heads, dim, v_dim);
  return {name, 200 * seq, [=](TestContext& tc) {
            const int64_t rows = 2 * seq;
            const Tensor qkv = tc.random({rows, (heads + kv_heads) * dim + kv_heads * v_dim}, 1);
            const Tensor q = qkv.cols(0, heads * dim).split_cols(heads, dim);
            const Tensor k = qkv.cols(heads * dim, kv_heads * dim).split_cols(kv_heads, dim);
            const Tensor v = qkv.cols((heads + kv_heads) * dim, kv_heads * v_dim).split_cols(kv_heads, v_dim);
            const AttentionSpec spec{.seq_len = seq, .window = window, .scale = 0.21};
            const Tensor o = tc.empty({rows, heads, v_dim});
            const Tensor lse = tc.empty({rows, heads}, tc.accumulator());
            tc->run(AttentionForward{.o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec});
            const Tensor d_o = tc.random({rows, heads, v_dim}, 2);
            const Tensor d = tc.empty(qkv.shape());
            const Tensor dq = d.cols(0, heads * dim).split_cols(heads, dim);
            const Tensor dk = d.cols(heads * dim, kv_heads * dim).split_cols(kv_heads, dim);
            const Tensor dv = d.cols((heads + kv_heads) * dim, kv_heads * v_dim).split_cols(kv_heads, v_dim);
            tc->run(AttentionBackward{
                .dq = dq, .dk = dk, .dv = dv, .d_o = d_o, .o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec});
            // With one key the other gradients are zero but for rounding.
            return seq == 1 ? std::vector{o, lse, dv} : std::vector{o, lse, dq, dk, dv};
          }};
}

Case expert_sort(int64_t first, int64_t local, int64_t align) {
  return {fmt::format("expert_sort_{}_{}_{}", first, local, align), 1, [=](TestContext& tc) {
            const int64_t tokens = 300, top_k = 3, rows = tokens * top_k + local * align;
            const Tensor experts = indices(tc, {tokens, top_k}, 1, 11);
            for (int64_t i = 0; i < experts.numel(); ++i) {
              auto& e = experts.data<int32_t>()[i];
              e = (e + 4 * static_cast<int32_t>(i % top_k)) % 12;  // distinct for a token, none goes to all
              if (e == 5) e = 6;
            }
            const Tensor offsets = tc.empty({local + 1}, DType::i32), row_token = tc.empty({rows}, DType::i32);
            const Tensor row_slot = tc.empty({rows}, DType::i32), slot_row = tc.empty({tokens, top_k}, DType::i32);
            tc->run(ExpertSort{.offsets = offsets,
                               .row_token = row_token,
                               .row_slot = row_slot,
                               .slot_row = slot_row,
                               .experts = experts,
                               .first = first,
                               .row_align = align});
            return std::vector{offsets, row_token, row_slot, slot_row};
          }};
}

Case head_loss(int64_t tokens, int64_t vocab, bool train, double z_coef = 0) {
  const std::string kind = !train ? "_eval" : z_coef > 0 ? "_z" : "";
  return {fmt::format("head_loss_{}_{}{}", tokens, vocab, kind), vocab, [=](TestContext& tc) {
            const int64_t dim = 48;
            const Tensor labels = indices(tc, {tokens}, 1, vocab);
            for (int64_t t = 0; t < tokens; t += 7) labels.data<int32_t>()[t] = kIgnoredLabel;
            const Tensor x = strided_random(tc, {tokens, dim}, 2, 0.4), w = tc.random({vocab, dim}, 3);
            const Tensor loss = tc.empty({tokens}, tc.accumulator());
            const Tensor dx = train ? tc.strided({tokens, dim}, tc.dtype()) : Tensor();
            const Tensor dw = train ? tc.random({vocab, dim}, 4) : Tensor();
            tc->run(HeadLoss{.loss = loss,
                             .dx = dx,
                             .dw = dw,
                             .x = x,
                             .w = w,
                             .labels = labels,
                             .grad_scale = tc.of({1}, DType::f64, {0.7}),
                             .z_coef = z_coef});
            return train ? std::vector{loss, dx, dw} : std::vector{loss};
          }};
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const bool trans_a : {false, true}) {
    for (const bool trans_b : {false, true}) {
      all.push_back(gemm(1, 1, 1, trans_a, trans_b, false));
      all.push_back(gemm(37, 45, 261, trans_a, trans_b, true));
      all.push_back(gemm(29, 70, 33, trans_a, trans_b, false));
    }
  }
  all.push_back(gemm(1100, 40, 20, false, true, false));
  all.push_back(gemm(130, 600, 24, true, false, true));
  all.push_back(gemm(5, 7, 0, false, false, false));
  // One row: fewer columns than a thread's share and more, depths around the number of chains.
  all.push_back(gemm(1, 3, 15, false, true, true));
  all.push_back(gemm(1, 70, 16, false, true, false));
  all.push_back(gemm(1, 259, 517, false, true, true));
  all.push_back(gemm(1, 5, 0, false, true, false));
  for (const bool trans_w : {false, true}) {
    all.push_back(grouped(trans_w));
    all.push_back(grouped_few(trans_w));
  }
  all.push_back(grouped_weight());
  all.push_back(attention(1, 0, 1, 1, 8, 8));
  all.push_back(attention(37, 0, 4, 2, 24, 16));
  all.push_back(attention(300, 0, 2, 1, 64, 64));
  all.push_back(attention(150, 9, 2, 2, 16, 40));
  all.push_back(attention(410, 270, 2, 1, 8, 8));
  all.push_back(attention(700, 128, 3, 1, 16, 24));  // keys before a block's window, whole and in part
  all.push_back(expert_sort(0, 12, 1));
  all.push_back(expert_sort(4, 4, 1));
  all.push_back(expert_sort(4, 4, 8));
  all.push_back(head_loss(300, 101, true));
  all.push_back(head_loss(40, 33, false));
  all.push_back(head_loss(300, 101, true, 0.2));
  return all;
}

class CpuOps : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Cases, CpuOps, testing::ValuesIn(cases()),
                         [](const auto& tested) { return tested.param.name; });

void expect_agreement(const Case& tested) {
  TestContext expected_context(DType::f32), context(DType::f32, cpu_backend(2));
  const auto expected = tested.run(expected_context);
  const auto got = tested.run(context);
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    SCOPED_TRACE("result " + std::to_string(i) + ", " + got[i].str());
    if (!is_float(got[i].dtype())) {
      EXPECT_TRUE(same(got[i], expected[i]));
    } else {
      // Even f64 sums are of f32 numbers that differ a little here.
      const DType dtype = got[i].dtype() == DType::f64 ? DType::f32 : got[i].dtype();
      EXPECT_TRUE(close(got[i], expected[i], tolerance(dtype, tested.reduction)));
    }
  }
}

TEST_P(CpuOps, AgreesWithRef) {
  expect_agreement(GetParam());
}

// AVX2 on a machine that has better, and the fallback that has no vectors.
TEST_P(CpuOps, AgreesWithRefOnOlderProcessors) {
  for (const int64_t target : {int64_t{HWY_AVX2}, int64_t{HWY_SCALAR}}) {
    if (!OnlyTarget::has(target)) continue;
    SCOPED_TRACE(hwy::TargetName(target));
    const OnlyTarget only(target);
    expect_agreement(GetParam());
  }
}

TEST_P(CpuOps, SameBitsAtAnyNumberOfThreads) {
  TestContext expected_context(DType::f32, cpu_backend(1));
  const auto expected = GetParam().run(expected_context);
  for (const int threads : {2, 3}) {
    TestContext context(DType::f32, cpu_backend(threads));
    const auto got = GetParam().run(context);
    for (size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(same(got[i], expected[i])) << "result " << i;
  }
}

TEST(CpuOps, RefuseIndicesOutOfRange) {
  TestContext tc(DType::f32, cpu_backend(2));
  const Tensor tokens = tc.ints({2}, {0, 5});
  const Tensor w = tc.random({5, 4}, 1), y = tc.empty({2, 4});
  EXPECT_THROW(tc->run(EmbeddingForward{.y = y, .w = w, .tokens = tokens}), Error);
  EXPECT_THROW(tc->run(EmbeddingBackward{.dw = w, .dy = y, .tokens = tokens}), Error);
  EXPECT_THROW(tc->run(GatherRows{.y = y, .x = w, .index = tokens}), Error);
  EXPECT_THROW(tc->run(HeadLoss{.loss = tc.empty({2}),
                                .dx = {},
                                .dw = {},
                                .x = y,
                                .w = w,
                                .labels = tokens,
                                .grad_scale = tc.of({1}, DType::f64, {1})}),
               Error);
}

TEST(CpuPeak, IsPlausible) {
  Pool pool(1);
  EXPECT_GT(cpu::measure_fma_peak(pool), 0.01);
  EXPECT_GT(cpu::measure_bandwidth(pool), 0.01);
  EXPECT_EQ(cpu::measure_bf16_peak(pool) > 0.01, cpu::has_bf16_dot());
  const OnlyTarget older(HWY_AVX2);
  EXPECT_EQ(cpu::measure_bf16_peak(pool), 0) << "no instruction, no figure";
}

}  // namespace
}  // namespace sluice
