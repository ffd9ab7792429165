#include "ops/gemm.h"

#include <gtest/gtest.h>

#include "device/scratch.h"
#include "emulation/emulated.h"
#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class GemmOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(GemmOps);

TEST_P(GemmOps, ByHand) {
  for (const DType dtype : kStorage) {
    TestContext tc(dtype, GetParam());
    const Tensor a = tc.of({2, 3}, dtype, {1, 2, 3, 4, 5, 6}), b = tc.of({3, 2}, dtype, {1, 0, -1, 2, 0, 3});
    const Tensor c = tc.empty({2, 2});
    tc->run(Gemm{.c = c, .a = a, .b = b});
    EXPECT_TRUE(holds(c, {-1, 13, -1, 28}));
    tc->run(Gemm{.c = c, .a = a, .b = b, .accumulate = true});
    EXPECT_TRUE(holds(c, {-2, 26, -2, 56}));
    const Tensor square = tc.empty({3, 3});
    tc->run(Gemm{.c = square, .a = a, .b = a, .trans_a = true});
    EXPECT_TRUE(holds(square, {17, 22, 27, 22, 29, 36, 27, 36, 45}));
    tc->run(Gemm{.c = c, .a = a, .b = a, .trans_b = true});
    EXPECT_TRUE(holds(c, {14, 32, 32, 77}));
  }
}

TEST_P(GemmOps, AgreesWithRefInEveryFormAndSize) {
  struct Size {
    int64_t m, n, k;
  };
  const Size sizes[] = {{1, 1, 1},     {1, 17, 5},   {7, 1, 3},     {3, 5, 0},     {0, 4, 3},     {16, 16, 16},
                        {65, 33, 129}, {130, 70, 9}, {257, 64, 64}, {40, 300, 31}, {129, 130, 17}};
  for (const DType dtype : kStorage) {
    for (const auto& [m, n, k] : sizes) {
      for (int form = 0; form < 16; ++form) {
        const bool trans_a = (form & 1) != 0, trans_b = (form & 2) != 0, accumulate = (form & 4) != 0;
        const bool strided = (form & 8) != 0;
        SCOPED_TRACE(fmt::format("{} x {} x {}, form {}", m, n, k, form));
        compare(dtype, k + 1, [&](TestContext& tc) {
          const auto make = [&](Shape shape, uint64_t seed) {
            const Tensor t = strided ? tc.strided(shape, dtype) : tc.empty(shape);
            randomize(t, seed);
            return t;
          };
          const Tensor c = make({m, n}, 1);
          const Tensor a = make(trans_a ? Shape{k, m} : Shape{m, k}, 2);
          const Tensor b = make(trans_b ? Shape{n, k} : Shape{k, n}, 3);
          tc->run(Gemm{.c = c, .a = a, .b = b, .trans_a = trans_a, .trans_b = trans_b, .accumulate = accumulate});
          return std::vector{c};
        });
      }
    }
  }
}

TEST_P(GemmOps, MixesBf16AndF32) {
  for (int form = 0; form < 8; ++form) {
    const auto dtype_of = [&](int bit) { return (form >> bit & 1) != 0 ? DType::bf16 : DType::f32; };
    compare(dtype_of(0), 32, [&](TestContext& tc) {
      const Tensor c = tc.random_as(dtype_of(0), {9, 10}, 1), a = tc.random_as(dtype_of(1), {9, 32}, 2);
      const Tensor b = tc.random_as(dtype_of(2), {10, 32}, 3);
      tc->run(Gemm{.c = c, .a = a, .b = b, .trans_b = true, .accumulate = true});
      return std::vector{c};
    });
  }
}

TEST_P(GemmOps, WritesNothingBetweenTheRows) {
  for (const DType dtype : kStorage) {
    TestContext tc(dtype, GetParam());
    const HostTensor c({5, 6}, dtype, 11);
    tc->run(Gemm{.c = c, .a = tc.random({5, 4}, 1), .b = tc.random({4, 6}, 2)});
    EXPECT_TRUE(c.intact_gaps());
  }
}

TEST(GemmGradient, EveryForm) {
  for (int form = 0; form < 4; ++form) {
    const bool trans_a = (form & 1) != 0, trans_b = (form & 2) != 0;
    TestContext tc(DType::f64);
    const Shape a_shape = trans_a ? Shape{4, 3} : Shape{3, 4}, b_shape = trans_b ? Shape{5, 4} : Shape{4, 5};
    const Tensor a = tc.random(a_shape, 1), b = tc.random(b_shape, 2), db = tc.empty(b_shape);
    const auto forward = [&](Context& ctx) {
      const Tensor c = ctx.activations().empty({3, 5}, DType::f64);
      ctx.run(Gemm{.c = c, .a = a, .b = b, .trans_a = trans_a, .trans_b = trans_b});
      return std::vector{c};
    };
    const auto backward = [&](Context& ctx, const std::vector<Tensor>& dout) {
      const Tensor& dc = dout[0];
      const Tensor da = ctx.activations().empty(a_shape, DType::f64);
      // da' = dc b'^T and db' = a'^T dc, transposed where the operand is.
      ctx.run(trans_a ? Gemm{.c = da, .a = b, .b = dc, .trans_a = trans_b, .trans_b = true}
                      : Gemm{.c = da, .a = dc, .b = b, .trans_b = !trans_b});
      ctx.run(trans_b ? Gemm{.c = db, .a = dc, .b = a, .trans_a = true, .trans_b = trans_a, .accumulate = true}
                      : Gemm{.c = db, .a = a, .b = dc, .trans_a = !trans_a, .accumulate = true});
      return std::vector{da};
    };
    check_gradients(tc, {.variables = {{"a", a}, {"b", b, db}}, .forward = forward, .backward = backward});
  }
}

TEST_P(GemmOps, GroupedIsOneProductPerExpert) {
  for (const DType dtype : kStorage) {
    for (const bool trans_w : {false, true}) {
      TestContext tc(dtype, GetParam());
      constexpr int64_t kExperts = 5, kRows = 41, kIn = 19, kOut = 23;
      const Tensor x = tc.random({kRows, kIn}, 1), y = tc.random({kRows, kOut}, 3), before = tc.copy(y);
      const Tensor w = tc.random(trans_w ? Shape{kExperts, kOut, kIn} : Shape{kExperts, kIn, kOut}, 2);
      // Rows before the first segment and behind the last, an expert without rows, one with a single row.
      const std::vector<int64_t> at{2, 9, 9, 10, 36, 38};
      const Tensor offsets = tc.ints({kExperts + 1}, {2, 9, 9, 10, 36, 38});
      tc->run(GroupedGemm{.y = y, .x = x, .w = w, .offsets = offsets, .trans_w = trans_w});
      for (int64_t e = 0; e < kExperts; ++e) {
        const auto i = static_cast<size_t>(e);
        const int64_t rows = at[i + 1] - at[i];
        if (rows == 0) continue;
        const Tensor we = w.rows(e, 1).view({w.dim(1), w.dim(2)}), expected = tc.empty({rows, kOut});
        tc->run(Gemm{.c = expected, .a = x.rows(at[i], rows), .b = we, .trans_b = trans_w});
        EXPECT_TRUE(close(y.rows(at[i], rows), expected, tolerance(dtype, kIn)));
      }
      EXPECT_TRUE(same(y.rows(0, 2), before.rows(0, 2)));
      EXPECT_TRUE(same(y.rows(38, 3), before.rows(38, 3)));
    }
  }
}

TEST_P(GemmOps, GroupedWeightIsOneProductPerExpert) {
  for (const DType dtype : kStorage) {
    TestContext tc(dtype, GetParam());
    constexpr int64_t kExperts = 4, kRows = 150, kIn = 19, kOut = 23;
    const Tensor x = tc.random({kRows, kIn}, 1), dy = tc.random({kRows, kOut}, 2);
    const Tensor dw = tc.random_as(tc.accumulator(), {kExperts, kOut, kIn}, 3), before = tc.copy(dw);
    const std::vector<int64_t> at{0, 1, 1, 140, 149};
    const Tensor offsets = tc.ints({kExperts + 1}, {0, 1, 1, 140, 149});
    tc->run(GroupedGemmWeight{.dw = dw, .dy = dy, .x = x, .offsets = offsets});
    EXPECT_TRUE(same(dw.rows(1, 1), before.rows(1, 1)));
    for (int64_t e = 0; e < kExperts; ++e) {
      const auto i = static_cast<size_t>(e);
      const int64_t rows = at[i + 1] - at[i];
      const Tensor expected = before.rows(e, 1).view({kOut, kIn});
      tc->run(Gemm{
          .c = expected, .a = dy.rows(at[i], rows), .b = x.rows(at[i], rows), .trans_a = true, .accumulate = true});
      EXPECT_TRUE(close(dw.rows(e, 1).view({kOut, kIn}), expected, tolerance(tc.accumulator(), rows + 1)));
    }
  }
}

TEST_P(GemmOps, GroupedAgreesWithRef) {
  const std::vector<std::vector<double>> cases{{0, 0, 0, 0}, {0, 300, 300, 300}, {0, 64, 128, 300}, {0, 0, 299, 300}};
  for (const DType dtype : kStorage) {
    for (const std::vector<double>& at : cases) {
      compare(dtype, 300, [&](TestContext& tc) {
        const Tensor x = tc.random({300, 40}, 1), w = tc.random({3, 56, 40}, 2), y = tc.empty({300, 56});
        const Tensor dw = tc.random_as(tc.accumulator(), {3, 56, 40}, 3), dx = tc.strided({300, 40}, dtype);
        const Tensor offsets = tc.empty({4}, DType::i32);
        assign(offsets, at);
        assign(y, std::vector<double>(300 * 56, 7));
        assign(dx, std::vector<double>(300 * 40, 7));
        tc->run(GroupedGemm{.y = y, .x = x, .w = w, .offsets = offsets, .trans_w = true});
        tc->run(GroupedGemm{.y = dx, .x = y, .w = w, .offsets = offsets});
        tc->run(GroupedGemmWeight{.dw = dw, .dy = y, .x = x, .offsets = offsets});
        return std::vector{y, dx, dw};
      });
    }
  }
}

// Sizes about the tile of a GPU's grouped kernels and widths that they take: whole 16-byte pieces in bf16.
TEST_P(GemmOps, GroupedTakesExpertsOfAnySize) {
  constexpr int64_t kRows = 400, kIn = 24, kOut = 264, kExperts = 7;
  const std::vector<double> at{3, 3, 4, 4, 131, 259, 388, 388};  // 0, 1, 0, 127, 128, 129 and 0 rows
  for (const DType dtype : kStorage) {
    for (const bool wide : {false, true}) {
      if (wide && dtype != DType::bf16) continue;
      compare(dtype, 264, [&](TestContext& tc) {
        const auto matrix = [&](int64_t cols, uint64_t seed) {
          const Tensor t = tc.random({kRows, cols + (wide ? 16 : 0)}, seed);
          return t.cols(0, cols);
        };
        const Tensor x = matrix(kIn, 1), y = matrix(kOut, 2), dx = matrix(kIn, 3);
        const Tensor w = tc.random({kExperts, kOut, kIn}, 4);
        const Tensor dw = tc.random_as(tc.accumulator(), w.shape(), 5), offsets = tc.empty({kExperts + 1}, DType::i32);
        assign(offsets, at);
        tc->run(GroupedGemm{.y = y, .x = x, .w = w, .offsets = offsets, .trans_w = true});
        tc->run(GroupedGemm{.y = dx, .x = y, .w = w, .offsets = offsets});
        tc->run(GroupedGemmWeight{.dw = dw, .dy = y, .x = x, .offsets = offsets});
        return std::vector{y, dx, dw};
      });
    }
  }
}

TEST_P(GemmOps, ExpertsWithoutRowsAreLeftAlone) {
  for (const DType dtype : kStorage) {
    TestContext tc(dtype, GetParam());
    const Tensor x = tc.random({8, 16}, 1), y = tc.random({8, 24}, 2), w = tc.random({3, 24, 16}, 3);
    const Tensor dw = tc.random_as(tc.accumulator(), w.shape(), 4);
    const Tensor y_before = tc.copy(y), dw_before = tc.copy(dw), offsets = tc.ints({4}, {5, 5, 5, 5});
    tc->run(GroupedGemm{.y = y, .x = x, .w = w, .offsets = offsets, .trans_w = true});
    tc->run(GroupedGemmWeight{.dw = dw, .dy = y, .x = x, .offsets = offsets});
    EXPECT_TRUE(same(y, y_before));
    EXPECT_TRUE(same(dw, dw_before));
  }
}

TEST(GroupedGemmGradient, WithAnEmptyExpert) {
  TestContext tc(DType::f64);
  constexpr int64_t kRows = 7, kIn = 3, kOut = 4, kExperts = 4;
  const Tensor x = tc.random({kRows, kIn}, 1), w = tc.random({kExperts, kOut, kIn}, 2), dw = tc.empty(w.shape());
  const Tensor offsets = tc.ints({kExperts + 1}, {0, 1, 4, 4, 7});
  const MutationReport report =
      check_gradients(tc, {.variables = {{"x", x}, {"w", w, dw}},
                           .forward =
                               [&](Context& ctx) {
                                 const Tensor y = ctx.activations().empty({kRows, kOut}, DType::f64);
                                 ctx.run(GroupedGemm{.y = y, .x = x, .w = w, .offsets = offsets, .trans_w = true});
                                 return std::vector{y};
                               },
                           .backward =
                               [&](Context& ctx, const std::vector<Tensor>& dout) {
                                 const Tensor dx = ctx.activations().empty(x.shape(), DType::f64);
                                 ctx.run(GroupedGemm{.y = dx, .x = dout[0], .w = w, .offsets = offsets});
                                 ctx.run(GroupedGemmWeight{.dw = dw, .dy = dout[0], .x = x, .offsets = offsets});
                                 return std::vector{dx};
                               }});
  EXPECT_TRUE(report.unused.empty()) << report.str();
}

TEST_P(GemmOps, OffsetsBehindTheRowsAreRefused) {
  for (const DType dtype : kStorage) {
    for (const int64_t width : {2, 8}) {
      TestContext tc(dtype, GetParam());
      const Tensor x = tc.random({4, width}, 1), w = tc.random({2, width, width}, 2), y = tc.empty({4, width});
      const Tensor dw = tc.random_as(tc.accumulator(), w.shape(), 3);
      for (const std::initializer_list<double> bad : {std::initializer_list<double>{0, 2, 5}, {0, 3, 2}, {-1, 2, 4}}) {
        const Tensor offsets = tc.ints({3}, bad);
        EXPECT_THROW(tc->run(GroupedGemm{.y = y, .x = x, .w = w, .offsets = offsets}), Error);
        EXPECT_THROW(tc->run(GroupedGemmWeight{.dw = dw, .dy = y, .x = x, .offsets = offsets}), Error);
      }
    }
  }
}

// Which products the grouped kernels of a GPU take; what they make of them the tests above see.
TEST(GroupedKernels, TakeWholePiecesOfBf16) {
  const auto taken = [](DType dtype, int64_t width, int64_t gap, int64_t rows) {
    TestContext tc(dtype, emulated_backend());
    const auto matrix = [&](uint64_t seed) { return tc.random({rows, width + gap}, seed).cols(0, width); };
    const Tensor x = matrix(1), y = matrix(2), w = tc.random({2, width, width}, 3);
    const Tensor dw = tc.random_as(tc.accumulator(), w.shape(), 4), offsets = tc.ints({3}, {0, 0, 1});
    const int64_t before = emulation::grouped_products();
    tc->run(GroupedGemm{.y = y, .x = x, .w = w, .offsets = offsets, .trans_w = true});
    tc->run(GroupedGemm{.y = y, .x = x, .w = w, .offsets = offsets});
    tc->run(GroupedGemmWeight{.dw = dw, .dy = y, .x = x, .offsets = offsets});
    return emulation::grouped_products() - before;
  };
  EXPECT_EQ(taken(DType::bf16, 8, 0, 3), 3);
  EXPECT_EQ(taken(DType::bf16, 16, 8, 3), 3);
  EXPECT_EQ(taken(DType::bf16, 16, 4, 3), 0);
  EXPECT_EQ(taken(DType::bf16, 12, 4, 3), 0);
  EXPECT_EQ(taken(DType::f32, 16, 0, 3), 0);
  EXPECT_EQ(taken(DType::f64, 16, 0, 3), 0);
}

TEST(GroupedKernels, ScratchIsForBf16OnAGpu) {
  const Target gpu{.row_align = 128, .workers = 1, .platform = Platform::gpu};
  for (const DType dtype : kStorage) {
    TestContext tc(dtype);
    const Tensor x = tc.random({4, 8}, 1), w = tc.random({2, 8, 8}, 2),
                 dw = tc.random_as(tc.accumulator(), {2, 8, 8}, 3);
    const Tensor offsets = tc.ints({3}, {0, 1, 4});
    const size_t expected = dtype == DType::bf16 ? gpu::grouped_workspace(2) : 0;
    EXPECT_EQ(scratch_of(GroupedGemm{.y = x, .x = x, .w = w, .offsets = offsets}, gpu), expected);
    EXPECT_EQ(scratch_of(GroupedGemmWeight{.dw = dw, .dy = x, .x = x, .offsets = offsets}, gpu), expected);
    EXPECT_EQ(scratch_of(Gemm{.c = x, .a = x, .b = w.rows(0, 1).view({8, 8})}, gpu), 0U);
  }
  EXPECT_EQ(gpu::grouped_workspace(1), 256U + gpu::kGroupedTensorMapBytes);
  EXPECT_EQ(gpu::grouped_workspace(256), 256U * 64 + gpu::kGroupedTensorMapBytes);
}

TEST(GemmCheck, RejectsWhatDoesNotFit) {
  TestContext tc(DType::f32);
  const Tensor a = tc.empty({3, 4}), b = tc.empty({4, 5}), c = tc.empty({3, 5});
  EXPECT_NO_THROW((Gemm{.c = c, .a = a, .b = b}.check()));
  EXPECT_EQ((Gemm{.c = c, .a = a, .b = b}.flops()), 2.0 * 3 * 4 * 5);
  EXPECT_REJECTED((Gemm{.c = c, .a = a, .b = b, .trans_b = true}), "gemm: b is f32[4, 5], expected f32[5, 4]");
  EXPECT_REJECTED((Gemm{.c = c, .a = a, .b = tc.empty({4, 5}, DType::f64)}), "gemm: b is f64[4, 5]");
  EXPECT_REJECTED((Gemm{.c = c, .a = a, .b = tc.empty({4}, DType::f32)}), "gemm: b is f32[4], expected 2 dimensions");
  EXPECT_REJECTED((Gemm{.c = c, .a = Tensor(), .b = b}), "gemm: a is missing");
  EXPECT_REJECTED((Gemm{.c = c, .a = tc.empty({3, 4}, DType::i32), .b = b}), "expected f64, f32 or bf16");
  const Tensor w = tc.empty({2, 5, 4}), offsets = tc.empty({3}, DType::i32);
  EXPECT_NO_THROW((GroupedGemm{.y = c, .x = a, .w = w, .offsets = offsets, .trans_w = true}.check()));
  EXPECT_REJECTED((GroupedGemm{.y = c, .x = a, .w = w, .offsets = offsets}), "grouped_gemm: x is f32[3, 4]");
  EXPECT_REJECTED((GroupedGemm{.y = c, .x = a, .w = w, .offsets = tc.empty({2}, DType::i32), .trans_w = true}),
                  "offsets is i32[2], expected i32[3]");
  EXPECT_REJECTED((GroupedGemmWeight{.dw = w, .dy = c, .x = b, .offsets = offsets}), "x is f32[4, 5]");
}

}  // namespace
}  // namespace sluice::test
