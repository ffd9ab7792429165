#include "ops/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class ElementwiseOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(ElementwiseOps);

TEST_P(ElementwiseOps, Fill) {
  TestContext tc(DType::f32, GetParam());
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::i32}) {
    const Tensor x = tc.empty({2, 3}, dtype);
    tc->run(Fill{.x = x, .value = -100});
    EXPECT_TRUE(holds(x, {-100, -100, -100, -100, -100, -100}));
    const HostTensor wide({3, 2}, dtype, 5);
    tc->run(Fill{.x = wide, .value = 2});
    EXPECT_TRUE(holds(wide, {2, 2, 2, 2, 2, 2}));
    EXPECT_TRUE(wide.intact_gaps());
  }
  tc->run(Fill{.x = tc.empty({0}), .value = 1});
  tc->run(Fill{.x = tc.empty({}), .value = 1});
}

TEST_P(ElementwiseOps, FillNormalIsTheSameHoweverItIsCut) {
  for (const DType dtype : kStorage) {
    TestContext tc(dtype, GetParam());
    const Tensor whole = tc.empty({1001}), parts = tc.empty({1001});
    tc->run(FillNormal{.x = whole, .std = 0.02, .key = 9, .first = 5});
    for (const auto& [begin, count] : {std::pair{0, 333}, {333, 1}, {334, 0}, {334, 667}}) {
      tc->run(FillNormal{.x = parts.rows(begin, count), .std = 0.02, .key = 9, .first = 5 + begin});
    }
    EXPECT_TRUE(same(parts, whole));
    const Tensor other = tc.empty({1001});
    tc->run(FillNormal{.x = other, .std = 0.02, .key = 10, .first = 5});
    EXPECT_FALSE(same(other, whole));
  }
}

TEST_P(ElementwiseOps, FillNormalHasItsMoments) {
  TestContext tc(DType::f32, GetParam());
  constexpr int64_t kCount = 40000;
  const Tensor x = tc.empty({kCount / 100, 100});
  tc->run(FillNormal{.x = x, .std = 3, .key = 1});
  double sum = 0, squares = 0, fourth = 0;
  for (const double v : values_of(x)) {
    sum += v;
    squares += v * v;
    fourth += v * v * v * v;
  }
  EXPECT_NEAR(sum / kCount, 0, 4 * 3 / std::sqrt(kCount));
  EXPECT_NEAR(squares / kCount, 9, 0.3);
  EXPECT_NEAR(fourth / kCount / 81, 3, 0.3);
}

TEST_P(ElementwiseOps, FillNormalEqualsRefBitForBit) {
  for (const DType dtype : kStorage) {
    TestContext expected(dtype), got(dtype, GetParam());
    const auto fill = [](TestContext& tc) {
      const Tensor x = tc.empty({70001});
      tc->run(FillNormal{.x = x, .std = 0.5, .key = 77, .first = 123});
      return x;
    };
    EXPECT_TRUE(same(fill(got), fill(expected)));
  }
}

TEST_P(ElementwiseOps, CopyConverts) {
  TestContext tc(DType::f32, GetParam());
  for (const DType from : kStorage) {
    for (const DType to : kStorage) {
      const Tensor x = tc.strided({3, 2}, from), y = tc.strided({3, 2}, to);
      assign(x, {1, -2, 0.5, 4, 3, 0});
      tc->run(Copy{.y = y, .x = x});
      EXPECT_TRUE(holds(y, {1, -2, 0.5, 4, 3, 0}));
    }
  }
  const Tensor rounded = tc.empty({1}, DType::bf16);
  tc->run(Copy{.y = rounded, .x = tc.of({1}, DType::f32, {1.01})});
  EXPECT_TRUE(holds(rounded, {1.0078125}));
  for (const DType integer : {DType::i32, DType::i64, DType::u8}) {
    const Tensor x = tc.of({4}, integer, {1, 2, 3, 200}), y = tc.empty({4}, integer);
    tc->run(Copy{.y = y, .x = x});
    EXPECT_TRUE(same(y, x));
  }
}

TEST_P(ElementwiseOps, AddAndCopyAgreeWithRef) {
  for (const DType dtype : kStorage) {
    for (const Shape& shape : {Shape{0}, Shape{1}, Shape{70001}, Shape{33, 129}, Shape{5, 3, 7}}) {
      for (const bool strided : {false, true}) {
        if (strided && shape.rank() == 1) continue;
        compare(dtype, 1, [&](TestContext& tc) {
          const auto make = [&](uint64_t seed) {
            const Tensor t = strided ? tc.strided(shape, dtype) : tc.empty(shape);
            randomize(t, seed);
            return t;
          };
          const Tensor y = make(1), x = make(2), copy = make(3);
          tc->run(Add{.y = y, .x = x});
          tc->run(Copy{.y = copy, .x = y});
          return std::vector{y, copy};
        });
      }
    }
  }
}

TEST_P(ElementwiseOps, SumOfValuesAndSquaresOverSeveralParts) {
  for (const DType dtype : kStorage) {
    for (const int64_t size : {int64_t{0}, int64_t{1}, int64_t{777}, 2 * Sum::kPart + 13}) {
      TestContext tc(dtype, GetParam());
      const Tensor x = tc.random({size}, 1), sum = tc.of({1}, DType::f64, {10}), squares = tc.of({1}, DType::f64, {-1});
      tc->run(Sum{.sum = sum, .x = x});
      tc->run(Sum{.sum = squares, .x = x, .squares = true});
      double expected = 10, expected_squares = -1;
      for (const double v : values_of(x)) {
        expected += v;
        expected_squares += v * v;
      }
      const double slack = static_cast<double>(size + 10) * 1e-13;
      EXPECT_NEAR(values_of(sum)[0], expected, slack);
      EXPECT_NEAR(values_of(squares)[0], expected_squares, slack);
    }
  }
}

// x times its inverse in sluice's own words: the gradient of a sum of two copies is two copies.
TEST(ElementwiseGradient, CopyAndAdd) {
  TestContext tc(DType::f64);
  const Tensor x = tc.random({3, 4}, 1), z = tc.random({3, 4}, 2);
  check_gradients(tc, {.variables = {{"x", x}, {"z", z}},
                       .forward =
                           [&](Context& ctx) {
                             const Tensor y = ctx.activations().empty_like(x);
                             ctx.run(Copy{.y = y, .x = x});
                             ctx.run(Add{.y = y, .x = z});
                             return std::vector{y};
                           },
                       .backward =
                           [&](Context& ctx, const std::vector<Tensor>& dout) {
                             const Tensor dx = ctx.activations().empty_like(x), dz = ctx.activations().empty_like(x);
                             ctx.run(Copy{.y = dx, .x = dout[0]});
                             ctx.run(Fill{.x = dz, .value = 0});
                             ctx.run(Add{.y = dz, .x = dout[0]});
                             return std::vector{dx, dz};
                           }});
}

TEST(ElementwiseCheck, RejectsWhatDoesNotFit) {
  TestContext tc(DType::f32);
  const Tensor x = tc.empty({2, 3}), y = tc.empty({3, 2});
  EXPECT_REJECTED((Add{.y = y, .x = x}), "add: x is f32[2, 3], expected f32[3, 2]");
  EXPECT_REJECTED((Add{.y = tc.empty({2, 3}, DType::bf16), .x = x}), "add: x is f32[2, 3], expected bf16[2, 3]");
  EXPECT_REJECTED((Copy{.y = y, .x = x}), "copy: y is f32[3, 2]");
  EXPECT_REJECTED((Copy{.y = tc.empty({2, 3}, DType::i32), .x = x}), "copy: y is i32[2, 3]");
  EXPECT_REJECTED((Fill{.x = tc.empty({2}, DType::u8)}), "fill: x is u8[2]");
  EXPECT_REJECTED((FillNormal{.x = tc.strided({2, 3}, DType::f32)}), "fill_normal: x f32[2, 3] must be dense");
  EXPECT_REJECTED((Sum{.sum = tc.empty({1}), .x = x}), "sum: sum is f32[1], expected f64[1]");
}

}  // namespace
}  // namespace sluice::test
