#include "ops/head_loss.h"

#include <gtest/gtest.h>

#include <cmath>

#include "device/scratch.h"
#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class HeadLossOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(HeadLossOps);

TEST_P(HeadLossOps, ByHand) {
  TestContext tc(DType::f64, GetParam());
  const double ln2 = std::log(2);
  // logits: (0, ln 2, 0), then (0, 1000 ln 2, 0), then an ignored row.
  const Tensor x = tc.of({3, 1}, DType::f64, {1, 1000, 5}), w = tc.of({3, 1}, DType::f64, {0, ln2, 0});
  const Tensor labels = tc.ints({3}, {1, 0, kIgnoredLabel}), loss = tc.empty({3}), dx = tc.empty({3, 1});
  const Tensor dw = tc.of({3, 1}, DType::f64, {1, 1, 1}), scale = tc.of({1}, DType::f64, {4});
  tc->run(HeadLoss{.loss = loss, .dx = dx, .dw = dw, .x = x, .w = w, .labels = labels, .grad_scale = scale});
  EXPECT_TRUE(close(loss, std::vector{ln2, 1000 * ln2, 0.}, tolerance(DType::f64, 3)));
  // dlogits: 4 (1/4, -1/2, 1/4), then 4 (-1, 1, 0)
  EXPECT_TRUE(close(dx, std::vector{-2 * ln2, 4 * ln2, 0.}, tolerance(DType::f64, 3)));
  EXPECT_TRUE(close(dw, std::vector{1 + 1 - 4000., 1 - 2 + 4000., 1 + 1.}, tolerance(DType::f64, 3)));
}

TEST_P(HeadLossOps, EqualLogitsLoseLogOfTheVocabulary) {
  for (const DType dtype : kStorage) {
    TestContext tc(dtype, GetParam());
    const Tensor x = tc.random({7, 5}, 1), w = tc.empty({10, 5}), loss = tc.empty({7}, tc.accumulator());
    assign(w, std::vector<double>(50, 0.5));
    tc->run(HeadLoss{.loss = loss,
                     .x = x,
                     .w = w,
                     .labels = tc.ints({7}, {0, 1, 2, 3, 4, 5, 9}),
                     .grad_scale = tc.of({1}, DType::f64, {1})});
    EXPECT_TRUE(close(loss, std::vector<double>(7, std::log(10)), tolerance(tc.accumulator(), 50)));
  }
}

// Logits and their gradients may be in the storage type.
Tolerance head_tolerance(DType dtype, int64_t reduction) {
  constexpr int kRoundings = 3;
  return tolerance(dtype, reduction, kRoundings);
}

// Loss, and with `train` the gradients, of strided rows, one of them ignored.
std::vector<Tensor> head_loss(TestContext& tc, int64_t rows, int64_t dim, int64_t vocab, bool train,
                              double z_coef = 0) {
  const Tensor x = tc.strided({rows, dim}, tc.dtype()), w = tc.random({vocab, dim}, 2);
  const Tensor labels = tc.empty({rows}, DType::i32), loss = tc.empty({rows}, tc.accumulator());
  const Tensor dx = tc.strided({rows, dim}, tc.dtype()), dw = tc.random_as(tc.accumulator(), {vocab, dim}, 4);
  randomize(x, 1);
  randomize_below(labels, 3, vocab);
  if (rows > 1) assign(labels.rows(1, 1), {kIgnoredLabel});
  HeadLoss op{
      .loss = loss, .x = x, .w = w, .labels = labels, .grad_scale = tc.of({1}, DType::f64, {0.3}), .z_coef = z_coef};
  if (train) {
    op.dx = dx;
    op.dw = dw;
  }
  tc->run(op);
  if (vocab == 1) return {dw};  // one word: loss and dx are zero
  return train ? std::vector{loss, dx, dw} : std::vector{loss};
}

TEST_P(HeadLossOps, AgreesWithRef) {
  for (const DType dtype : kStorage) {
    for (const auto& [rows, dim, vocab] : {std::tuple{1, 1, 1}, {60, 9, 7}, {40, 33, 301}, {3, 2, 2100}}) {
      for (const bool train : {true, false}) {
        compare_within(
            dtype, head_tolerance(dtype, 4 * std::max(vocab, rows)),
            [&, t = int64_t{rows}, d = dim, v = vocab](TestContext& tc) { return head_loss(tc, t, d, v, train); });
      }
    }
  }
}

TEST_P(HeadLossOps, WithAZLossAgreesWithRef) {
  for (const DType dtype : kStorage) {
    for (const auto& [rows, dim, vocab] : {std::tuple{60, 9, 7}, {40, 33, 301}}) {
      compare_within(
          dtype, head_tolerance(dtype, 4 * std::max(vocab, rows)),
          [&, t = int64_t{rows}, d = dim, v = vocab](TestContext& tc) { return head_loss(tc, t, d, v, true, 0.2); });
    }
  }
}

// Two equal logits of a: lse = a + ln 2. The z-loss pushes both down by 2 z lse / 2 each, and is no part of the loss.
TEST_P(HeadLossOps, TheZLossOfEqualLogits) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    TestContext tc(dtype, GetParam());
    constexpr double kLogit = 3, kZ = 0.25;
    const Tensor x = tc.of({2, 1}, dtype, {kLogit, kLogit}), w = tc.of({2, 1}, dtype, {1, 1});
    const Tensor labels = tc.ints({2}, {0, kIgnoredLabel}), loss = tc.empty({2}), dx = tc.empty({2, 1});
    const Tensor dw = tc.of({2, 1}, dtype, {0, 0}), scale = tc.of({1}, DType::f64, {4});
    tc->run(HeadLoss{
        .loss = loss, .dx = dx, .dw = dw, .x = x, .w = w, .labels = labels, .grad_scale = scale, .z_coef = kZ});
    const double lse = kLogit + std::log(2), z = 2 * kZ * lse * 4;
    EXPECT_TRUE(close(loss, std::vector{std::log(2), 0.}, tolerance(dtype, 10)));
    EXPECT_TRUE(close(dx, std::vector{z, 0.}, tolerance(dtype, 10)));
    EXPECT_TRUE(close(dw, std::vector{kLogit * (z / 2 - 2), kLogit * (z / 2 + 2)}, tolerance(dtype, 10)));
  }
}

// More rows than one chunk of any device, and a last chunk that is not full.
TEST_P(HeadLossOps, AgreesWithRefAcrossChunks) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    constexpr int64_t kRows = 4100;
    compare_within(dtype, head_tolerance(dtype, kRows), [&](TestContext& tc) {
      const HeadLoss op{.x = tc.empty({kRows, 4}), .w = tc.empty({5, 4})};
      EXPECT_LT(cpu::head_chunk_rows(op), kRows);
      EXPECT_LT(gpu::head_chunk_rows(op), kRows);
      return head_loss(tc, kRows, 4, 5, true);
    });
  }
}

// A chunk is a bounded share of memory whatever the vocabulary, and chunks are about equal.
TEST(HeadLossChunks, OfAGpu) {
  TestContext tc(DType::bf16);
  const Target target{.platform = Platform::gpu};
  const auto chunk = [&](int64_t rows, int64_t vocab) {
    static bf16 nothing;
    const HeadLoss op{.x = Tensor(&nothing, {rows, 8}, DType::bf16), .w = Tensor(&nothing, {vocab, 8}, DType::bf16)};
    EXPECT_EQ(gpu::head_logits_stride(op) % 8, 0);
    EXPECT_GE(scratch_of(op, target), static_cast<size_t>(gpu::head_chunk_rows(op) * vocab * 2));
    EXPECT_LT(scratch_of(op, target), size_t{700} << 20);
    return gpu::head_chunk_rows(op);
  };
  EXPECT_EQ(chunk(16384, 151936), 2048);
  EXPECT_EQ(chunk(4096, 129280), 2048);
  EXPECT_EQ(chunk(5000, 32000), 2560);
  EXPECT_EQ(chunk(100, 151936), 100);
  EXPECT_EQ(chunk(1, 7), 1);
  EXPECT_EQ(chunk(100000, 1000000), 256);
}

TEST_P(HeadLossOps, LabelsOutsideTheVocabularyAreRefused) {
  for (const double bad : {-1., -99., 4.}) {
    TestContext tc(DType::f32, GetParam());
    const HeadLoss op{.loss = tc.empty({2}),
                      .x = tc.random({2, 3}, 1),
                      .w = tc.random({4, 3}, 2),
                      .labels = tc.ints({2}, {0, bad}),
                      .grad_scale = tc.of({1}, DType::f64, {1})};
    try {
      tc->run(op);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(fmt::format("label {:.0f} is not in [0, 4)", bad)), std::string::npos)
          << error.what();
    }
  }
}

TEST(HeadLossGradient, WithAnIgnoredRowAndSeveralChunks) {
  for (const int64_t rows : {int64_t{6}, int64_t{520}}) {
    TestContext tc(DType::f64);
    constexpr int64_t kDim = 3, kVocab = 5;
    const Tensor x = tc.random({rows, kDim}, 1), w = tc.random({kVocab, kDim}, 2), dw = tc.empty(w.shape());
    const Tensor labels = tc.empty({rows}, DType::i32), scale = tc.of({1}, DType::f64, {0.7});
    randomize_below(labels, 3, kVocab);
    assign(labels.rows(2, 1), {kIgnoredLabel});
    Tensor dx;
    const MutationReport report = check_gradients(
        tc,
        {.variables = {{"x", x}, {"w", w, dw}},
         .forward =
             [&](Context& ctx) {
               const Tensor loss = ctx.activations().empty({rows}, DType::f64);
               dx = ctx.activations().empty(x.shape(), DType::f64);
               ctx.run(
                   HeadLoss{.loss = loss, .dx = dx, .dw = dw, .x = x, .w = w, .labels = labels, .grad_scale = scale});
               return std::vector{loss};
             },
         .backward = [&](Context&, const std::vector<Tensor>&) { return std::vector{dx}; },
         .output_gradient =
             [](size_t, const Shape& shape) { return std::vector<double>(static_cast<size_t>(shape.numel()), 0.7); }});
    EXPECT_TRUE(report.unused.empty()) << report.str();
  }
}

// z_coef sum lse^2 over the rows with a label.
double z_loss(const Tensor& x, const Tensor& w, const Tensor& labels, double z_coef) {
  const std::vector<double> xs = values_of(x), ws = values_of(w), label = values_of(labels);
  const auto dim = static_cast<size_t>(x.dim(1));
  double sum = 0;
  for (size_t t = 0; t < label.size(); ++t) {
    double exponentials = 0;
    for (size_t v = 0; v < ws.size(); v += dim) {
      double logit = 0;
      for (size_t i = 0; i < dim; ++i) logit += xs[t * dim + i] * ws[v + i];
      exponentials += std::exp(logit);
    }
    if (label[t] >= 0) sum += std::log(exponentials) * std::log(exponentials);
  }
  return z_coef * sum;
}

TEST(HeadLossGradient, WithAZLoss) {
  TestContext tc(DType::f64);
  constexpr int64_t kRows = 6, kDim = 3, kVocab = 5;
  constexpr double kZ = 0.3, kScale = 0.7;
  const Tensor x = tc.random({kRows, kDim}, 1), w = tc.random({kVocab, kDim}, 2), dw = tc.empty(w.shape());
  const Tensor labels = tc.ints({kRows}, {0, 4, kIgnoredLabel, 1, 3, 2}), scale = tc.of({1}, DType::f64, {kScale});
  Tensor dx;
  const MutationReport report =
      check_gradients(tc, {.variables = {{"x", x}, {"w", w, dw}},
                           .forward =
                               [&](Context& ctx) {
                                 const Tensor loss = ctx.activations().empty({kRows}, DType::f64);
                                 const Tensor z = ctx.activations().empty({1}, DType::f64);
                                 dx = ctx.activations().empty(x.shape(), DType::f64);
                                 ctx.run(HeadLoss{.loss = loss,
                                                  .dx = dx,
                                                  .dw = dw,
                                                  .x = x,
                                                  .w = w,
                                                  .labels = labels,
                                                  .grad_scale = scale,
                                                  .z_coef = kZ});
                                 assign(z, {z_loss(x, w, labels, kZ)});
                                 return std::vector{loss, z};
                               },
                           .backward = [&](Context&, const std::vector<Tensor>&) { return std::vector{dx}; },
                           .output_gradient =
                               [&](size_t, const Shape& shape) {
                                 return std::vector<double>(static_cast<size_t>(shape.numel()), kScale);
                               }});
  EXPECT_TRUE(report.unused.empty()) << report.str();
}

TEST(HeadLossCheck, RejectsWhatDoesNotFit) {
  TestContext tc(DType::bf16);
  const HeadLoss good{.loss = tc.empty({6}, DType::f32),
                      .x = tc.empty({6, 3}),
                      .w = tc.empty({5, 3}),
                      .labels = tc.empty({6}, DType::i32),
                      .grad_scale = tc.empty({1}, DType::f64)};
  EXPECT_NO_THROW(good.check());
  EXPECT_EQ(cpu::head_chunk_rows(good), 6);
  EXPECT_GE(scratch_of(good, {}), 6U * 5U * 4U);
  HeadLoss op = good;
  op.dx = tc.empty({6, 3});
  EXPECT_REJECTED(op, "head_loss: dx and dw are wanted together");
  op.dw = tc.empty({5, 3});
  EXPECT_REJECTED(op, "dw is bf16[5, 3], expected f32[5, 3]");
  op = good;
  op.w = tc.empty({5, 4});
  EXPECT_REJECTED(op, "w is bf16[5, 4], expected bf16[5, 3]");
  op = good;
  op.z_coef = -1;
  EXPECT_REJECTED(op, "head_loss: z_coef is -1");
  op = good;
  op.grad_scale = tc.empty({1}, DType::f32);
  EXPECT_REJECTED(op, "grad_scale is f32[1], expected f64[1]");
}

}  // namespace
}  // namespace sluice::test
