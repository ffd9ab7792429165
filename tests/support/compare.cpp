#include "support/compare.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "support/host_tensor.h"

namespace sluice::test {

Difference difference(std::span<const double> got, std::span<const double> expected, int64_t row_length) {
  constexpr double kRowFloor = 1e-3;
  double largest = 0;
  for (const double x : expected) largest = std::max(largest, std::abs(x));
  Difference result;
  double worst_error = 0;
  const auto width = static_cast<size_t>(std::max<int64_t>(row_length, 1));
  for (size_t begin = 0; begin < expected.size(); begin += width) {
    double row_largest = 0, row_error = 0;
    for (size_t i = begin; i < std::min(begin + width, expected.size()); ++i) {
      const double error = std::abs(got[i] - expected[i]);
      if (!std::isfinite(error)) {
        constexpr double kInfinite = std::numeric_limits<double>::infinity();
        return {kInfinite, kInfinite, i};
      }
      row_largest = std::max(row_largest, std::abs(expected[i]));
      row_error = std::max(row_error, error);
      if (error > worst_error) {
        worst_error = error;
        result.worst = i;
      }
    }
    if (row_error > 0) result.row = std::max(result.row, row_error / std::max(row_largest, kRowFloor * largest));
  }
  if (worst_error > 0) result.global = worst_error / largest;
  return result;
}

testing::AssertionResult close(std::span<const double> got, std::span<const double> expected, const Tolerance& allowed,
                               int64_t row_length) {
  if (got.size() != expected.size() || got.empty()) {
    return testing::AssertionFailure() << got.size() << " values compared with " << expected.size();
  }
  const Difference d = difference(got, expected, row_length);
  if (!(d.global <= allowed.global) || !(d.row <= allowed.row)) {
    return testing::AssertionFailure() << "error " << d.global << " (allowed " << allowed.global << "), worst row "
                                       << d.row << " (allowed " << allowed.row << "); element " << d.worst << " is "
                                       << got[d.worst] << ", expected " << expected[d.worst];
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult close(const Tensor& got, const Tensor& expected, const Tolerance& allowed) {
  if (got.shape() != expected.shape()) return testing::AssertionFailure() << got.str() << " and " << expected.str();
  return close(got, values_of(expected), allowed);
}

testing::AssertionResult close(const Tensor& got, std::span<const double> expected, const Tolerance& allowed) {
  const int64_t row_length = got.rank() > 1 ? got.dim(got.rank() - 1) : got.numel();
  return close(values_of(got), expected, allowed, row_length);
}

testing::AssertionResult same(const Tensor& got, const Tensor& expected) {
  if (got.shape() != expected.shape() || got.dtype() != expected.dtype() || got.numel() == 0) {
    return testing::AssertionFailure() << got.str() << " compared with " << expected.str();
  }
  const size_t size = size_of(got.dtype());
  const auto inner = got.shape().inner();
  for (int64_t i = 0; i < got.dim(0); ++i) {
    for (int64_t j = 0; j < inner; ++j) {
      const auto* a = static_cast<const char*>(got.raw()) + static_cast<size_t>(i * got.stride() + j) * size;
      const auto* b = static_cast<const char*>(expected.raw()) + static_cast<size_t>(i * expected.stride() + j) * size;
      if (std::memcmp(a, b, size) != 0) {
        const auto at = static_cast<size_t>(i * inner + j);
        return testing::AssertionFailure()
               << "element " << at << " is " << values_of(got)[at] << ", expected exactly " << values_of(expected)[at];
      }
    }
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult holds(const Tensor& got, std::initializer_list<double> expected) {
  const std::vector<double> values = values_of(got);
  if (!std::equal(values.begin(), values.end(), expected.begin(), expected.end())) {
    auto failure = testing::AssertionFailure() << got.str() << " holds";
    for (const double x : values) failure << ' ' << x;
    return failure;
  }
  return testing::AssertionSuccess();
}

}  // namespace sluice::test
