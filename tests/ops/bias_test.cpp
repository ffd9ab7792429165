#include "ops/bias.h"

#include <gtest/gtest.h>

#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class BiasOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(BiasOps);

TEST_P(BiasOps, ByHand) {
  TestContext tc(DType::f64, GetParam());
  const Tensor y = tc.of({4, 2}, DType::f64, {1, 2, 3, 4, 5, 6, 7, 8}), b = tc.of({2, 2}, DType::f64, {10, 20, 30, 40});
  const Tensor offsets = tc.ints({3}, {1, 2, 3}), weight = tc.of({4}, DType::f64, {9, 2, 0.5, 9});
  tc->run(AddBias{.y = y, .b = b, .offsets = offsets, .weight = weight});
  EXPECT_TRUE(holds(y, {1, 2, 23, 44, 20, 26, 7, 8}));
  const Tensor db = tc.of({2, 2}, DType::f64, {1, 1, 1, 1}), dweight = tc.of({4}, DType::f64, {1, 1, 1, 1});
  const Tensor dy = tc.of({4, 2}, DType::f64, {1, 1, 2, 3, 4, 5, 1, 1});
  tc->run(BiasBackward{.db = db, .dweight = dweight, .dy = dy, .b = b, .offsets = offsets, .weight = weight});
  EXPECT_TRUE(holds(db, {5, 7, 3, 3.5}));
  EXPECT_TRUE(holds(dweight, {1, 81, 321, 1}));
}

TEST_P(BiasOps, AgreesWithRef) {
  const std::vector<std::vector<double>> cases{{0, 0, 0, 0}, {0, 300, 300, 300}, {3, 64, 128, 299}};
  for (const DType dtype : kStorage) {
    for (const int64_t width : {1, 17, 64}) {
      for (const bool weighted : {false, true}) {
        compare(dtype, 300, [&](TestContext& tc) {
          const Tensor y = tc.strided({300, width}, dtype), dy = tc.random({300, width}, 2),
                       b = tc.random({1, width}, 3);
          randomize(y, 1);
          const Tensor weight = weighted ? tc.random_as(tc.accumulator(), {300}, 4) : Tensor();
          const Tensor db = tc.random_as(tc.accumulator(), {1, width}, 5);
          tc->run(AddBias{.y = y, .b = b, .weight = weight});
          tc->run(BiasBackward{.db = db, .dy = dy, .weight = weight});
          return std::vector{y, db};
        });
        for (const std::vector<double>& at : cases) {
          compare(dtype, 300, [&](TestContext& tc) {
            const Tensor y = tc.random({300, width}, 1), dy = tc.strided({300, width}, dtype);
            randomize(dy, 2);
            const Tensor b = tc.random({3, width}, 3), offsets = tc.empty({4}, DType::i32);
            assign(offsets, at);
            const Tensor weight = weighted ? tc.random_as(tc.accumulator(), {300}, 4) : Tensor();
            const Tensor db = tc.random_as(tc.accumulator(), {3, width}, 5);
            const Tensor dweight = weighted ? tc.random_as(tc.accumulator(), {300}, 6) : Tensor();
            tc->run(AddBias{.y = y, .b = b, .offsets = offsets, .weight = weight});
            tc->run(BiasBackward{.db = db, .dweight = dweight, .dy = dy, .b = b, .offsets = offsets, .weight = weight});
            return weighted ? std::vector{y, db, dweight} : std::vector{y, db};
          });
        }
      }
    }
  }
}

TEST_P(BiasOps, BadOffsetsAreRefused) {
  TestContext tc(DType::f32, GetParam());
  const Tensor y = tc.random({4, 2}, 1), b = tc.random({2, 2}, 2), db = tc.random({2, 2}, 3);
  for (const std::initializer_list<double> bad : {std::initializer_list<double>{0, 2, 5}, {0, 3, 2}, {-1, 2, 4}}) {
    const Tensor offsets = tc.ints({3}, bad);
    EXPECT_THROW(tc->run(AddBias{.y = y, .b = b, .offsets = offsets}), Error);
    EXPECT_THROW(tc->run(BiasBackward{.db = db, .dy = y, .offsets = offsets}), Error);
  }
}

TEST(BiasGradient, OfBiasInputAndWeight) {
  TestContext tc(DType::f64);
  const Tensor x = tc.random({5, 3}, 1), b = tc.random({2, 3}, 2), db = tc.empty({2, 3});
  const Tensor weight = tc.random({5}, 3), dweight = tc.empty({5}), offsets = tc.ints({3}, {0, 2, 5});
  check_gradients(
      tc, {.variables = {{"x", x}, {"b", b, db}, {"weight", weight, dweight}},
           .forward =
               [&](Context& ctx) {
                 const Tensor y = ctx.activations().empty_like(x);
                 ctx.run(Copy{.y = y, .x = x});
                 ctx.run(AddBias{.y = y, .b = b, .offsets = offsets, .weight = weight});
                 return std::vector{y};
               },
           .backward =
               [&](Context& ctx, const std::vector<Tensor>& dout) {
                 const Tensor dx = ctx.activations().empty_like(x);
                 ctx.run(Copy{.y = dx, .x = dout[0]});
                 ctx.run(BiasBackward{
                     .db = db, .dweight = dweight, .dy = dout[0], .b = b, .offsets = offsets, .weight = weight});
                 return std::vector{dx};
               }});
}

TEST(BiasCheck, RejectsWhatDoesNotFit) {
  TestContext tc(DType::f32);
  const Tensor y = tc.empty({4, 2}), b = tc.empty({2, 2});
  EXPECT_REJECTED((AddBias{.y = y, .b = b}), "add_bias: 2 biases without offsets");
  EXPECT_REJECTED((AddBias{.y = y, .b = tc.empty({1, 3})}), "b is f32[1, 3], expected f32[1, 2]");
  EXPECT_REJECTED((BiasBackward{.db = b, .dy = y, .offsets = tc.empty({2}, DType::i32)}),
                  "offsets is i32[2], expected i32[3]");
}

}  // namespace
}  // namespace sluice::test
