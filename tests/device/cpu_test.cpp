// The fast path against ref, in f32, at sizes that reach every edge of its tiles and on every instruction set it is
// compiled for; and the same bits at any number of threads.
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <string>
#include <vector>

#include "device/cpu/cpu_backend.h"
#include "device/cpu/peak.h"
#include "device/cpu_cases.h"
#include "support/compare.h"
#include "support/test_context.h"

namespace sluice {
namespace {

using namespace test;

using Case = CpuCase;

Tensor indices(TestContext& tc, Shape shape, uint64_t seed, int64_t bound, double share_of_holes = 0) {
  const Tensor t = tc.empty(shape, DType::i32);
  randomize_below(t, seed, bound);
  auto* data = t.data<int32_t>();
  const auto period = share_of_holes > 0 ? static_cast<int64_t>(1 / share_of_holes) : t.numel() + 1;
  for (int64_t i = period - 1; i < t.numel(); i += period) data[i] = -1;
  return t;
}

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

Case norm(int64_t rows, int64_t dim) {
  return {fmt::format("rmsnorm_{}_{}", rows, dim), std::max(rows, dim), [=](TestContext& tc) {
            const Tensor x = strided_random(tc, {rows, dim}, 1), add = strided_random(tc, {rows, dim}, 2);
            const Tensor gamma = tc.random({dim}, 3), sum = tc.empty({rows, dim}),
                         y = tc.strided({rows, dim}, tc.dtype());
            const Tensor rstd = tc.empty({rows}, tc.accumulator());
            tc->run(ResidualRmsNormForward{
                .sum = sum, .y = y, .rstd = rstd, .x = x, .add = add, .gamma = gamma, .eps = 1e-5});
            const Tensor y2 = tc.empty({rows, dim}), rstd2 = tc.empty({rows}, tc.accumulator());
            tc->run(RmsNormForward{.y = y2, .rstd = rstd2, .x = x, .gamma = gamma, .eps = 1e-5});
            const Tensor dy = tc.random({rows, dim}, 4), dgamma = tc.random({dim}, 5);
            const Tensor dx = tc.empty({rows, dim});
            tc->run(RmsNormBackward{
                .dx = dx, .dgamma = dgamma, .dy = dy, .x = x, .rstd = rstd2, .gamma = gamma, .residual = add});
            tc->run(RmsNormBackward{
                .dx = dy, .dgamma = dgamma, .dy = dy, .x = x, .rstd = rstd2, .gamma = gamma, .residual = {}});
            return std::vector{sum, y, rstd, y2, rstd2, dx, dy, dgamma};
          }};
}

Case norm_per_head() {
  return {"rmsnorm_per_head", 1100, [](TestContext& tc) {
            const Tensor wide = tc.random({367, 3 * 20 + 8}, 1), dwide = tc.random({367, 3 * 20 + 8}, 2);
            const Tensor x = wide.cols(8, 60).split_cols(3, 20), dy = dwide.cols(8, 60).split_cols(3, 20);
            const Tensor gamma = tc.random({20}, 3), dgamma = tc.random({20}, 4);
            const Tensor y = tc.empty({367, 3, 20}), rstd = tc.empty({367, 3}, tc.accumulator());
            tc->run(RmsNormForward{.y = y, .rstd = rstd, .x = x, .gamma = gamma, .eps = 1e-6});
            tc->run(RmsNormBackward{
                .dx = dy, .dgamma = dgamma, .dy = dy, .x = x, .rstd = rstd, .gamma = gamma, .residual = {}});
            return std::vector{y, rstd, dwide, dgamma};
          }};
}

Case rope(int64_t dim) {
  return {fmt::format("rope_{}", dim), 1, [=](TestContext& tc) {
            const Tensor table = tc.empty({70, dim}, tc.accumulator());
            tc->run(RopeTable{.cos_sin = table, .theta = 1e4});
            const Tensor x = tc.random({140, 3 * dim + 5}, 1);
            tc->run(Rope{.x = x.cols(2, 3 * dim).split_cols(3, dim), .cos_sin = table, .inverse = false});
            const Tensor y = tc.random({140, 3, dim}, 2);
            tc->run(Rope{.x = y, .cos_sin = table, .inverse = true});
            return std::vector{x, y};
          }};
}

Case swiglu(int64_t dim, bool weighted, const SwigluForm& form = {}) {
  const auto name = fmt::format("swiglu_{}{}{}", dim, weighted ? "_weighted" : "", form.limit != 0 ? "_clamped" : "");
  return {name, dim, [=](TestContext& tc) {
            const int64_t rows = 150;
            const Tensor gate_up = strided_random(tc, {rows, 2 * dim}, 1, 4);
            const Tensor weight = weighted ? tc.random_as(tc.accumulator(), {rows}, 2) : Tensor();
            const Tensor h = tc.strided({rows, dim}, tc.dtype()), dh = strided_random(tc, {rows, dim}, 3);
            const Tensor dweight = weighted ? tc.empty({rows}, tc.accumulator()) : Tensor();
            tc->run(SwigluForward{.h = h, .gate_up = gate_up, .weight = weight, .form = form});
            tc->run(SwigluBackward{
                .dgate_up = gate_up, .dweight = dweight, .dh = dh, .gate_up = gate_up, .weight = weight, .form = form});
            return weighted ? std::vector{h, gate_up, dweight} : std::vector{h, gate_up};
          }};
}

Case router(int64_t num_experts, int64_t top_k) {
  return {fmt::format("router_{}_{}", num_experts, top_k), num_experts, [=](TestContext& tc) {
            const int64_t tokens = 600;
            const Tensor logits = tc.random({tokens, num_experts}, 1, 3);
            for (int64_t e = 0; e < num_experts; ++e) logits.data<float>()[5 * num_experts + e] = 0.5F;  // all tie
            const Tensor experts = tc.empty({tokens, top_k}, DType::i32), weights = tc.empty({tokens, top_k});
            const Tensor probs = tc.empty({tokens, num_experts}), dlogits = tc.empty({tokens, num_experts});
            tc->run(SoftmaxTopKForward{.experts = experts, .weights = weights, .probs = probs, .logits = logits});
            tc->run(SoftmaxTopKBackward{.dlogits = dlogits,
                                        .dweights = tc.random({tokens, top_k}, 2),
                                        .experts = experts,
                                        .weights = weights,
                                        .probs = probs});
            tc->run(RouterZBackward{
                .dlogits = dlogits, .logits = logits, .grad_scale = tc.of({1}, DType::f64, {0.7}), .coef = 0.1});
            return std::vector{experts, weights, probs, dlogits};
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

Case moves(int64_t dim) {
  return {fmt::format("gather_and_sum_{}", dim), 1, [=](TestContext& tc) {
            const Tensor x = strided_random(tc, {90, dim}, 1), y = tc.strided({200, dim}, tc.dtype());
            tc->run(GatherRows{.y = y, .x = x, .index = indices(tc, {200}, 2, 90, 0.2)});
            const Tensor index = indices(tc, {90, 4}, 3, 200, 0.15);
            const Tensor sum = tc.empty({90, dim}), with_add = strided_random(tc, {90, dim}, 4);
            tc->run(SumRows{.y = sum, .x = y, .index = index, .add = {}});
            tc->run(SumRows{.y = with_add, .x = y, .index = index, .add = with_add});
            return std::vector{y, sum, with_add};
          }};
}

Case embedding() {
  return {"embedding", 20, [](TestContext& tc) {
            const Tensor tokens = indices(tc, {300}, 1, 23);
            const Tensor w = tc.random({23, 150}, 2), y = tc.empty({300, 150}), dw = tc.random({23, 150}, 3);
            tc->run(EmbeddingForward{.y = y, .w = w, .tokens = tokens});
            tc->run(EmbeddingBackward{.dw = dw, .dy = tc.random({300, 150}, 4), .tokens = tokens});
            return std::vector{y, dw};
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

Case adamw(DType moments) {
  return {"adamw_" + std::string(name_of(moments)), 1, [=](TestContext& tc) {
            const int64_t n = 20011;
            const Tensor state = tc.of({kStepSlots}, DType::f64, {1e-2, 0.271, 0.002997, 0.8, 1, 1, 0, 0.1});
            const Tensor w = tc.random({n}, 1), m = tc.random_as(moments, {n}, 2);
            const Tensor v = tc.random_as(moments, {n}, 3, 0.1, 0.5);
            tc->run(AdamW{.w = w, .m = m, .v = v, .g = tc.random({n}, 4), .state = state, .beta2 = 0.95});
            return std::vector{w, m, v};
          }};
}

Case small_change() {
  return {"fill_copy_add_sum", 100000, [](TestContext& tc) {
            const Tensor normal = tc.empty({9001}), ints = tc.empty({77}, DType::i32);
            tc->run(FillNormal{.x = normal, .std = 0.02, .key = 99, .first = 12345});
            tc->run(Fill{.x = ints, .value = 7});
            const Tensor gaps = tc.strided({33, 20}, tc.dtype()), narrow = tc.empty({33, 20}, DType::bf16);
            tc->run(Fill{.x = gaps, .value = 0.3});
            const Tensor x = strided_random(tc, {33, 20}, 1);
            tc->run(Copy{.y = narrow, .x = x});
            tc->run(Add{.y = gaps, .x = x});
            const Tensor wide = tc.empty({33, 20}), big = tc.random({150001}, 2), sums = tc.of({1}, DType::f64, {2});
            tc->run(Copy{.y = wide, .x = narrow});
            tc->run(Add{.y = big, .x = tc.random({150001}, 3)});
            tc->run(Sum{.sum = sums, .x = big, .squares = true});
            const Tensor plain = tc.of({1}, DType::f64, {-1});
            tc->run(Sum{.sum = plain, .x = big, .squares = false});
            return std::vector{normal, ints, narrow, gaps, wide, big, sums, plain};
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
  all.push_back(norm(600, 100));
  all.push_back(norm(3, 7));
  all.push_back(norm_per_head());
  for (const int64_t dim : {6, 16, 64}) all.push_back(rope(dim));
  for (const int64_t dim : {5, 64, 100}) {
    all.push_back(swiglu(dim, dim != 64));
    all.push_back(swiglu(dim, dim != 64, {.limit = 3, .alpha = 1.702}));
  }
  all.push_back(router(16, 4));
  all.push_back(router(5, 5));
  all.push_back(router(60, 8));
  all.push_back(expert_sort(0, 12, 1));
  all.push_back(expert_sort(4, 4, 1));
  all.push_back(expert_sort(4, 4, 8));
  for (const int64_t dim : {1, 50, 128}) all.push_back(moves(dim));
  all.push_back(embedding());
  all.push_back(head_loss(300, 101, true));
  all.push_back(head_loss(40, 33, false));
  all.push_back(head_loss(300, 101, true, 0.2));
  all.push_back(adamw(DType::f32));
  all.push_back(adamw(DType::bf16));
  all.push_back(small_change());
  for (const Case& c : bias_and_head_cases()) all.push_back(c);
  return all;
}

class CpuOps : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Cases, CpuOps, testing::ValuesIn(cases()),
                         [](const auto& tested) { return tested.param.name; });

// Holds the kernels to one instruction set while it lives.
class OnlyTarget {
 public:
  explicit OnlyTarget(int64_t target) { use(target); }
  ~OnlyTarget() { use(0); }
  OnlyTarget(const OnlyTarget&) = delete;
  OnlyTarget& operator=(const OnlyTarget&) = delete;
  OnlyTarget(OnlyTarget&&) = delete;
  OnlyTarget& operator=(OnlyTarget&&) = delete;

 private:
  static void use(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

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
    if (target != HWY_SCALAR && (hwy::SupportedTargets() & target) == 0) continue;
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
}

}  // namespace
}  // namespace sluice
