#include "ops/embedding.h"

#include <gtest/gtest.h>

#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class EmbeddingOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(EmbeddingOps);

TEST_P(EmbeddingOps, ByHand) {
  for (const DType dtype : kStorage) {
    TestContext tc(dtype, GetParam());
    const Tensor w = tc.of({3, 2}, dtype, {1, 2, 3, 4, 5, 6}), tokens = tc.ints({4}, {2, 0, 2, 1});
    const Tensor y = tc.empty({4, 2}), dw = tc.of({3, 2}, tc.accumulator(), {10, 10, 10, 10, 10, 10});
    tc->run(EmbeddingForward{.y = y, .w = w, .tokens = tokens});
    EXPECT_TRUE(holds(y, {5, 6, 1, 2, 5, 6, 3, 4}));
    tc->run(EmbeddingBackward{.dw = dw, .dy = y, .tokens = tokens});
    EXPECT_TRUE(holds(dw, {11, 12, 13, 14, 20, 22}));
  }
}

TEST_P(EmbeddingOps, AgreesWithRef) {
  for (const DType dtype : kStorage) {
    for (const Shape& shape : {Shape{0, 3}, Shape{1, 1}, Shape{500, 37}}) {
      compare(dtype, 100, [&](TestContext& tc) {
        const Tensor w = tc.random({11, shape[1]}, 1), y = tc.strided(shape, dtype), dy = tc.random(shape, 2);
        const Tensor dw = tc.random_as(tc.accumulator(), w.shape(), 3), tokens = tc.empty({shape[0]}, DType::i32);
        randomize_below(tokens, 4, 11);
        tc->run(EmbeddingForward{.y = y, .w = w, .tokens = tokens});
        tc->run(EmbeddingBackward{.dw = dw, .dy = dy, .tokens = tokens});
        return std::vector{y, dw};
      });
    }
  }
}

TEST_P(EmbeddingOps, TokensOutsideTheVocabularyAreRefused) {
  for (const double bad : {-1., 3., 2147483647.}) {
    TestContext tc(DType::f32, GetParam());
    const Tensor w = tc.random({3, 2}, 1), y = tc.random({2, 2}, 2), tokens = tc.ints({2}, {0, bad});
    try {
      tc->run(EmbeddingForward{.y = y, .w = w, .tokens = tokens});
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(fmt::format("token {:.0f} is not in [0, 3)", bad)), std::string::npos)
          << error.what();
    }
    EXPECT_THROW(tc->run(EmbeddingBackward{.dw = w, .dy = y, .tokens = tokens}), Error);
  }
}

TEST(EmbeddingGradient, WithRepeatedTokens) {
  TestContext tc(DType::f64);
  const Tensor w = tc.random({5, 3}, 1), dw = tc.empty({5, 3}), tokens = tc.ints({6}, {4, 1, 4, 2, 1, 4});
  check_gradients(tc, {.variables = {{"w", w, dw}},
                       .forward =
                           [&](Context& ctx) {
                             const Tensor y = ctx.activations().empty({6, 3}, DType::f64);
                             ctx.run(EmbeddingForward{.y = y, .w = w, .tokens = tokens});
                             return std::vector{y};
                           },
                       .backward =
                           [&](Context& ctx, const std::vector<Tensor>& dout) {
                             ctx.run(EmbeddingBackward{.dw = dw, .dy = dout[0], .tokens = tokens});
                             return std::vector<Tensor>();
                           }});
}

TEST(EmbeddingCheck, RejectsWhatDoesNotFit) {
  TestContext tc(DType::bf16);
  const Tensor w = tc.empty({5, 3}), y = tc.empty({6, 3}), tokens = tc.empty({6}, DType::i32);
  EXPECT_NO_THROW((EmbeddingForward{.y = y, .w = w, .tokens = tokens}.check()));
  EXPECT_REJECTED((EmbeddingForward{.y = tc.empty({6, 2}), .w = w, .tokens = tokens}), "w is bf16[5, 3]");
  EXPECT_REJECTED((EmbeddingForward{.y = y, .w = w, .tokens = tc.empty({6}, DType::i64)}), "tokens is i64[6]");
  EXPECT_REJECTED((EmbeddingBackward{.dw = w, .dy = y, .tokens = tokens}), "dw is bf16[5, 3], expected f32[5, 3]");
}

}  // namespace
}  // namespace sluice::test
