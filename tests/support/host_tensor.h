// Tensors in host memory for tests: an owning one, element access as double whatever the dtype, random contents.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace sluice::test {

// All elements in row order, strides skipped; floating types and integers.
std::vector<double> values_of(const Tensor& t);
// Writes all elements, rounding to the dtype.
void assign(const Tensor& t, std::span<const double> values);
void assign(const Tensor& t, std::initializer_list<double> values);
// Every bit set: NaN as any floating type, -1 as an integer.
void poison(const Tensor& t);

// center + scale * r with r of random sign and magnitude in [0.2, 1.2): no element is near zero by chance.
std::vector<double> random_values(int64_t count, uint64_t seed, double scale = 1, double center = 0);
void randomize(const Tensor& t, uint64_t seed, double scale = 1, double center = 0);
// Integers in [0, bound).
void randomize_below(const Tensor& t, uint64_t seed, int64_t bound);

// An array of its own, poisoned; `stride` elements between rows if given, the gaps checked by intact_gaps().
class HostTensor {
 public:
  HostTensor(Shape shape, DType dtype, int64_t stride = 0);
  HostTensor(Shape shape, DType dtype, std::span<const double> values);

  const Tensor& tensor() const { return tensor_; }
  operator const Tensor&() const { return tensor_; }
  std::vector<double> values() const { return values_of(tensor_); }
  // True while nothing was written between the rows.
  bool intact_gaps() const;

 private:
  std::vector<unsigned char> bytes_;
  Tensor tensor_;
};

}  // namespace sluice::test
