// Products of bf16 on a CPU: the same bits with the processor's instruction, with multiply-adds in its place, on every
// instruction set and at any number of threads.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "device/cpu/cpu_backend.h"
#include "support/compare.h"
#include "support/only_target.h"
#include "support/test_context.h"

namespace sluice::test {
namespace {

BackendCase backend(int threads, bool bf16_dot) {
  struct Owner {
    Owner(int count, bool bf16_dot) : pool(count), backend(pool, bf16_dot) {}
    Pool pool;
    CpuBackend backend;
  };
  return {"cpu", [=] {
            const auto owner = std::make_shared<Owner>(threads, bf16_dot);
            return std::shared_ptr<Backend>(owner, &owner->backend);
          }};
}

struct Case {
  std::string name;
  bool everywhere;  // no bits that hang on the width of vectors, or on whether f32 are multiplied and added at once
  std::function<std::vector<Tensor>(TestContext&)> run;
};

struct Types {
  DType c = DType::bf16;
  DType a = DType::bf16;
  DType b = DType::bf16;
};

Tensor strided(TestContext& tc, Shape shape, DType dtype, uint64_t seed) {
  const Tensor t = tc.strided(shape, dtype);
  randomize(t, seed);
  return t;
}

Case gemm(int64_t m, int64_t n, int64_t k, int form, Types types = {}) {
  const bool trans_a = (form & 1) != 0, trans_b = (form & 2) != 0, accumulate = (form & 4) != 0;
  const std::string name =
      fmt::format("gemm_{}_{}_{}_form{}_{}_{}_{}", m, n, k, form, name_of(types.c), name_of(types.a), name_of(types.b));
  return {name, types.a == DType::bf16 && types.b == DType::bf16, [=](TestContext& tc) {
            const Tensor a = strided(tc, trans_a ? Shape{k, m} : Shape{m, k}, types.a, 1);
            const Tensor b = strided(tc, trans_b ? Shape{n, k} : Shape{k, n}, types.b, 2);
            const Tensor c = strided(tc, {m, n}, types.c, 3);
            tc->run(Gemm{.c = c, .a = a, .b = b, .trans_a = trans_a, .trans_b = trans_b, .accumulate = accumulate});
            return std::vector{c};
          }};
}

// Experts of 3, 0, 29, 1 and 12 rows.
Case experts(bool trans_w) {
  return {trans_w ? "experts_tw" : "experts", true, [=](TestContext& tc) {
            const int64_t rows = 45, n = 70, k = 51;
            const Tensor offsets = tc.ints({6}, {0, 3, 3, 32, 33, 45});
            const Tensor x = strided(tc, {rows, k}, DType::bf16, 1);
            const Tensor w = tc.random(trans_w ? Shape{5, n, k} : Shape{5, k, n}, 2);
            const Tensor y = strided(tc, {rows, n}, DType::bf16, 3);
            const Tensor dw = tc.random_as(DType::f32, {5, n, k}, 4);
            tc->run(GroupedGemm{.y = y, .x = x, .w = w, .offsets = offsets, .trans_w = trans_w});
            tc->run(GroupedGemmWeight{.dw = dw, .dy = y, .x = x, .offsets = offsets});
            return std::vector{y, dw};
          }};
}

Case attention(int64_t seq, int64_t window, int64_t dim, int64_t v_dim) {
  return {fmt::format("attention_{}_{}_{}_{}", seq, window, dim, v_dim), false, [=](TestContext& tc) {
            const AttentionSpec spec{.seq_len = seq, .window = window, .scale = 0.3};
            const Tensor q = tc.random({2 * seq, 4, dim}, 1), k = tc.random({2 * seq, 2, dim}, 2);
            const Tensor v = tc.random({2 * seq, 2, v_dim}, 3), d_o = tc.random({2 * seq, 4, v_dim}, 4);
            const Tensor o = tc.empty(d_o.shape()), lse = tc.empty({2 * seq, 4}, DType::f32);
            const Tensor dq = tc.empty(q.shape()), dk = tc.empty(k.shape()), dv = tc.empty(v.shape());
            tc->run(AttentionForward{.o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec});
            tc->run(AttentionBackward{
                .dq = dq, .dk = dk, .dv = dv, .d_o = d_o, .o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec});
            return std::vector{o, lse, dq, dk, dv};
          }};
}

Case head(int64_t rows, int64_t vocab, int64_t dim) {
  return {fmt::format("head_{}_{}_{}", rows, vocab, dim), false, [=](TestContext& tc) {
            const Tensor x = tc.random({rows, dim}, 1), w = tc.random({vocab, dim}, 2);
            const Tensor labels = tc.empty({rows}, DType::i32);
            randomize_below(labels, 3, vocab);
            const Tensor loss = tc.empty({rows}, DType::f32), dx = tc.empty(x.shape());
            const Tensor dw = tc.random_as(DType::f32, w.shape(), 4);
            tc->run(HeadLoss{.loss = loss,
                             .dx = dx,
                             .dw = dw,
                             .x = x,
                             .w = w,
                             .labels = labels,
                             .grad_scale = tc.of({1}, DType::f64, {0.5})});
            return std::vector{loss, dx, dw};
          }};
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (int form = 0; form < 8; ++form) {
    all.push_back(gemm(45, 70, 33, form));
    // More than a block of depth: a sum goes through memory.
    all.push_back(gemm(30, 36, 1301, form));
  }
  // Row panels of every height.
  for (int64_t rows = 1; rows <= 29; ++rows) all.push_back(gemm(rows, 40, 24, 2));
  for (int types = 0; types < 8; ++types) {
    const auto type_of = [&](int bit) { return (types >> bit & 1) != 0 ? DType::f32 : DType::bf16; };
    for (const int form : {1, 2}) all.push_back(gemm(17, 35, 530, form, {type_of(0), type_of(1), type_of(2)}));
  }
  all.push_back(experts(false));
  all.push_back(experts(true));
  all.push_back(attention(131, 0, 24, 24));
  all.push_back(attention(131, 37, 33, 17));
  all.push_back(attention(300, 0, 16, 8));
  all.push_back(head(150, 301, 40));
  return all;
}

void expect_same(const std::vector<Tensor>& got, const std::vector<Tensor>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(same(got[i], expected[i])) << "result " << i;
}

TEST(Bf16Products, HaveTheBitsOfMultiplyAdds) {
  if (!cpu::has_bf16_dot()) GTEST_SKIP() << "this processor has no instruction for products of bf16";
  for (const Case& each : cases()) {
    SCOPED_TRACE(each.name);
    TestContext with(DType::bf16, backend(2, true)), without(DType::bf16, backend(2, false));
    expect_same(each.run(without), each.run(with));
  }
}

TEST(Bf16Products, HaveTheSameBitsAtAnyNumberOfThreads) {
  const bool bf16_dot = cpu::has_bf16_dot();
  for (const Case& each : cases()) {
    SCOPED_TRACE(each.name);
    TestContext one(DType::bf16, backend(1, bf16_dot));
    const auto expected = each.run(one);
    for (const int threads : {2, 3}) {
      TestContext many(DType::bf16, backend(threads, bf16_dot));
      expect_same(each.run(many), expected);
    }
  }
}

TEST(Bf16Products, HaveTheSameBitsOnOlderProcessors) {
  for (const Case& each : cases()) {
    if (!each.everywhere) continue;
    TestContext here(DType::bf16, backend(2, cpu::has_bf16_dot()));
    const auto expected = each.run(here);
    for (const int64_t target : {int64_t{HWY_AVX2}, int64_t{HWY_SCALAR}}) {
      if (!OnlyTarget::has(target)) continue;
      SCOPED_TRACE(each.name + " on " + hwy::TargetName(target));
      const OnlyTarget only(target);
      TestContext there(DType::bf16, backend(2, false));
      expect_same(each.run(there), expected);
    }
  }
}

// Denormals, sums that cancel, infinities and NaNs: bits drawn at random, in rows of one kind each so that what is no
// number does not hide the rest.
TEST(Bf16Product, OfAnyBitsIsThatOfMultiplyAdds) {
  constexpr int64_t kRows = 56, kCols = 64, kDepth = 38;
  std::mt19937 random(5);
  const auto run = [&](bool bf16_dot, uint32_t seed) {
    random.seed(seed);
    TestContext tc(DType::bf16, backend(1, bf16_dot));
    const Tensor a = tc.empty({kRows, kDepth}), b = tc.empty({kCols, kDepth});
    for (const Tensor& t : {a, b}) {
      for (int64_t i = 0; i < t.numel(); ++i) {
        auto bits = static_cast<uint16_t>(random());
        const int64_t row = i / kDepth;
        // Exponents about 2^-63, whose products are about the smallest number; about 1; any.
        if (row % 3 == 0) bits = static_cast<uint16_t>((bits & 0x80ffU) | ((48U + bits % 24) << 8));
        if (row % 3 == 1) bits = static_cast<uint16_t>((bits & 0x80ffU) | ((60U + bits % 4) << 8));
        t.data<bf16>()[i].bits = bits;
      }
    }
    const Tensor c = tc.empty({kRows, kCols}, DType::f32);
    tc->run(Gemm{.c = c, .a = a, .b = b, .trans_b = true});
    std::vector<float> values(c.data<float>(), c.data<float>() + c.numel());
    return values;
  };
  if (!cpu::has_bf16_dot()) GTEST_SKIP() << "this processor has no instruction for products of bf16";
  int64_t numbers = 0, denormal = 0;
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const std::vector<float> with = run(true, seed), without = run(false, seed);
    for (size_t i = 0; i < with.size(); ++i) {
      // Which NaN it is the instruction does not promise.
      if (std::isnan(with[i]) && std::isnan(without[i])) continue;
      ASSERT_EQ(std::bit_cast<uint32_t>(with[i]), std::bit_cast<uint32_t>(without[i]))
          << with[i] << " and " << without[i] << " at " << i << ", seed " << seed;
      numbers += std::isfinite(with[i]) ? 1 : 0;
      denormal += std::fpclassify(with[i]) == FP_SUBNORMAL ? 1 : 0;
    }
  }
  EXPECT_GT(numbers, 30000);
  EXPECT_EQ(denormal, 0);
}

// 257 ones of the first block of depth are 256 or 258 in bf16; 256 less is 1.
TEST(Bf16Product, OfManyBlocksIsRoundedOnce) {
  constexpr int64_t kOnes = 257, kDepth = 1100;
  for (const bool accumulate : {false, true}) {
    TestContext tc(DType::bf16, backend(1, cpu::has_bf16_dot()));
    const Tensor a = tc.empty({1, kDepth}), b = tc.empty({kDepth, 1}), c = tc.of({1, 1}, DType::bf16, {2});
    std::vector<double> terms(kDepth, 0);
    std::fill_n(terms.begin(), kOnes, 1);
    std::fill_n(terms.begin() + 600, kOnes - 1, -1);
    assign(a, terms);
    assign(b, std::vector<double>(kDepth, 1));
    tc->run(Gemm{.c = c, .a = a, .b = b, .accumulate = accumulate});
    EXPECT_TRUE(holds(c, {accumulate ? 3.0 : 1.0}));
  }
}

// What a caller has set for its own arithmetic is as it was.
TEST(Bf16Product, LeavesDenormalsToOthers) {
  TestContext tc(DType::bf16, backend(1, cpu::has_bf16_dot()));
  tc->run(Gemm{.c = tc.empty({4, 4}), .a = tc.random({4, 4}, 1), .b = tc.random({4, 4}, 2)});
  volatile float small = std::numeric_limits<float>::min();
  EXPECT_GT(small / 2, 0.0F);
}

}  // namespace
}  // namespace sluice::test
