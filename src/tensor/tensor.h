// Tensor: a cheap, non-owning view of memory somebody else (an Arena, a flat parameter group) keeps alive.
// Inner dimensions are dense; dimension 0 may have a stride, so that columns of a wider matrix are a view too.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "tensor/dtype.h"

namespace sluice {

// Up to four extents. An empty shape has rank 0 and no elements.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[static_cast<size_t>(i)]; }
  int64_t numel() const;
  // Product of all dimensions but the first.
  int64_t inner() const;
  bool operator==(const Shape&) const = default;
  std::string str() const;  // "[3, 4]"

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

class Tensor {
 public:
  Tensor() = default;
  // A dense tensor over `data`, which must hold shape.numel() elements (null on a device without memory only if empty).
  Tensor(void* data, Shape shape, DType dtype) : Tensor(data, shape, dtype, shape.inner()) {}
  Tensor(void* data, Shape shape, DType dtype, int64_t stride)
      : data_(data), shape_(shape), stride_(stride), dtype_(dtype) {}

  bool defined() const { return data_ != nullptr; }
  explicit operator bool() const { return defined(); }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t numel() const { return shape_.numel(); }
  DType dtype() const { return dtype_; }
  // Elements between consecutive indices of dimension 0.
  int64_t stride() const { return stride_; }
  bool dense() const { return stride_ == shape_.inner() || shape_.rank() == 0 || shape_[0] <= 1; }
  size_t bytes() const { return static_cast<size_t>(numel()) * size_of(dtype_); }

  void* raw() const { return data_; }
  template <class T>
  T* data() const {
    require(dtype_ == DTypeOf<T>::value, "tensor of {} read as another type", name_of(dtype_));
    return static_cast<T*>(data_);
  }

  // Same elements, another shape; the tensor must be dense.
  Tensor view(Shape shape) const;
  // Indices [begin, begin + count) of dimension 0.
  Tensor rows(int64_t begin, int64_t count) const;
  // Columns [begin, begin + count) of a matrix, as a strided matrix.
  Tensor cols(int64_t begin, int64_t count) const;
  // A matrix [T, n * d] whose inner dimension is split: [T, n, d], keeping the stride.
  Tensor split_cols(int64_t n, int64_t d) const;
  std::string str() const;  // "f32[3, 4]"

 private:
  void* data_ = nullptr;
  Shape shape_;
  int64_t stride_ = 0;
  DType dtype_ = DType::f32;
};

// A tensor over a caller's array (host data, tests).
template <class T>
Tensor tensor_of(T* data, Shape shape) {
  return {data, shape, DTypeOf<T>::value};
}

}  // namespace sluice
