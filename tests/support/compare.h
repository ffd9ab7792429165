// Comparing tensors, failing closed: NaN, infinities, another shape or nothing to compare are failures.
//   EXPECT_TRUE(close(y, expected, tolerance(DType::f32, dim)));
#pragma once

#include <gtest/gtest.h>

#include <span>

#include "support/tolerance.h"
#include "tensor/tensor.h"

namespace sluice::test {

// Largest error over the largest expected value, and the same row by row (a row counts as at least a thousandth of the
// largest value). `row_length` elements are a row.
struct Difference {
  double global = 0;
  double row = 0;
  size_t worst = 0;  // index of the largest error
};
Difference difference(std::span<const double> got, std::span<const double> expected, int64_t row_length);

testing::AssertionResult close(std::span<const double> got, std::span<const double> expected, const Tolerance& allowed,
                               int64_t row_length = 1);
testing::AssertionResult close(const Tensor& got, const Tensor& expected, const Tolerance& allowed);
testing::AssertionResult close(const Tensor& got, std::span<const double> expected, const Tolerance& allowed);
// Equal bits.
testing::AssertionResult same(const Tensor& got, const Tensor& expected);
// An integer or floating tensor holds exactly these values.
testing::AssertionResult holds(const Tensor& got, std::initializer_list<double> expected);

}  // namespace sluice::test
