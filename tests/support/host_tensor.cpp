#include "support/host_tensor.h"

#include <algorithm>
#include <cstring>

#include "base/philox.h"

namespace sluice::test {

namespace {

// Calls f(T{}) with the element type of any tensor a test may look into.
template <class F>
void dispatch(DType dtype, F&& f) {
  switch (dtype) {
    case DType::i64:
      return f(int64_t{});
    case DType::i32:
      return f(int32_t{});
    case DType::u8:
      return f(uint8_t{});
    default:
      return dispatch_float(dtype, f);
  }
}

// Calls f(element, index in row order) for every element.
template <class T, class F>
void for_each(const Tensor& t, F&& f) {
  if (t.rank() == 0) return;
  const int64_t inner = t.shape().inner();
  for (int64_t i = 0; i < t.dim(0); ++i) {
    for (int64_t j = 0; j < inner; ++j) f(t.data<T>()[i * t.stride() + j], static_cast<size_t>(i * inner + j));
  }
}

}  // namespace

std::vector<double> values_of(const Tensor& t) {
  std::vector<double> values(static_cast<size_t>(t.numel()));
  dispatch(t.dtype(), [&]<class T>(T) { for_each<T>(t, [&](T& x, size_t i) { values[i] = static_cast<double>(x); }); });
  return values;
}

void assign(const Tensor& t, std::span<const double> values) {
  require(static_cast<int64_t>(values.size()) == t.numel(), "{} values for {}", values.size(), t.str());
  dispatch(t.dtype(), [&]<class T>(T) { for_each<T>(t, [&](T& x, size_t i) { x = static_cast<T>(values[i]); }); });
}

void assign(const Tensor& t, std::initializer_list<double> values) {
  assign(t, std::span<const double>(values.begin(), values.size()));
}

void poison(const Tensor& t) {
  if (t.rank() == 0) return;
  const auto row = static_cast<size_t>(t.shape().inner()) * size_of(t.dtype());
  const auto stride = t.stride() * static_cast<int64_t>(size_of(t.dtype()));
  for (int64_t i = 0; i < t.dim(0); ++i) std::memset(static_cast<char*>(t.raw()) + i * stride, 0xff, row);
}

std::vector<double> random_values(int64_t count, uint64_t seed, double scale, double center) {
  const Philox random(seed);
  std::vector<double> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    const double sign = random.bits(i, 1) % 2 == 0 ? 1 : -1;
    values[i] = center + scale * sign * (0.2 + random.uniform(i));
  }
  return values;
}

void randomize(const Tensor& t, uint64_t seed, double scale, double center) {
  assign(t, random_values(t.numel(), seed, scale, center));
}

void randomize_below(const Tensor& t, uint64_t seed, int64_t bound) {
  const Philox random(seed);
  std::vector<double> values(static_cast<size_t>(t.numel()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<double>(random.below(static_cast<uint64_t>(bound), i));
  }
  assign(t, values);
}

HostTensor::HostTensor(Shape shape, DType dtype, int64_t stride) {
  if (stride == 0) stride = shape.inner();
  const int64_t rows = shape.rank() == 0 ? 0 : shape[0];
  bytes_.assign(static_cast<size_t>(std::max<int64_t>(rows * stride, 1)) * size_of(dtype), 0xff);
  tensor_ = Tensor(bytes_.data(), shape, dtype, stride);
}

HostTensor::HostTensor(Shape shape, DType dtype, std::span<const double> values) : HostTensor(shape, dtype) {
  assign(tensor_, values);
}

bool HostTensor::intact_gaps() const {
  const size_t size = size_of(tensor_.dtype());
  const auto row = static_cast<size_t>(tensor_.shape().inner()) * size;
  const auto stride = static_cast<size_t>(tensor_.stride()) * size;
  for (size_t i = 0; stride > 0 && i < bytes_.size(); ++i) {
    if (i % stride >= row && bytes_[i] != 0xff) return false;
  }
  return true;
}

}  // namespace sluice::test
