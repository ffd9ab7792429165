// How far two computations of the same thing may lie apart: the one place tolerances come from.
#pragma once

#include <cmath>
#include <cstdint>

#include "tensor/dtype.h"

namespace sluice::test {

// Bounds on the two metrics of compare.h.
struct Tolerance {
  double global = 0;  // largest error over the largest value of the tensor
  double row = 0;     // the same within the worst row
};

// Half the distance from 1 to the next number: the relative error of one rounding.
inline double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 0x1p-53;
    case DType::f32:
      return 0x1p-24;
    default:
      return 0x1p-8;  // bf16: 8 bits, 7 of them stored
  }
}

// Between results of storage type `dtype` whose elements are sums of `reduction` terms in the accumulator type.
// Rounding errors of a sum grow like the root of its length; both sides round once more on storing. A row may hold
// smaller numbers than the tensor and suffer from cancellation, hence the larger bound. `roundings` counts the values
// on the way that a device may keep in the storage type, the result included.
inline Tolerance tolerance(DType dtype, int64_t reduction = 1, int roundings = 1) {
  const double accumulated = unit_roundoff(accumulator_of(dtype)) * std::sqrt(static_cast<double>(reduction));
  const double global = 8 * accumulated + 2 * roundings * unit_roundoff(dtype);
  return {global, 8 * global};
}

// The same without a bound on rows: for results some of whose rows are differences that cancel.
inline Tolerance global_tolerance(DType dtype, int64_t reduction = 1, int roundings = 1) {
  return {tolerance(dtype, reduction, roundings).global, HUGE_VAL};
}

// How far the mean of so many independent numbers of this standard deviation lies from what is expected: five of its
// own deviations, which chance exceeds once in two million times.
inline double mean_tolerance(double deviation, int64_t count) {
  return 5 * deviation / std::sqrt(static_cast<double>(count));
}

}  // namespace sluice::test
