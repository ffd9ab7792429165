// What the reference loops share: row pointers, products with sums in f64, checked indices.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace sluice::ref {

// Row i of a matrix, or slice i of any tensor, whatever its stride.
template <class T>
T* row(const Tensor& t, int64_t i) {
  return t.data<T>() + i * t.stride();
}

template <class T>
double load(T x) {
  return static_cast<double>(x);
}

template <class T>
void store(T& to, double value) {
  to = static_cast<T>(value);
}

// A matrix as its elements lie: element (i, j) at data[i * row + j * col].
template <class T>
struct Matrix {
  T* data;
  int64_t row;
  int64_t col;
  T& operator()(int64_t i, int64_t j) const { return data[i * row + j * col]; }
  Matrix transposed() const { return {data, col, row}; }
};

template <class T>
Matrix<T> matrix(const Tensor& t) {
  return {t.data<T>(), t.stride(), 1};
}

// c (+)= a b, [M, N] = [M, K] [K, N]
template <class C, class A, class B>
void multiply(Matrix<C> c, Matrix<A> a, Matrix<B> b, int64_t m, int64_t n, int64_t k, bool accumulate) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < k; ++l) sum += load(a(i, l)) * load(b(l, j));
      store(c(i, j), accumulate ? load(c(i, j)) + sum : sum);
    }
  }
}

// The value of an index tensor's element, which must be in [0, bound).
inline int64_t checked(const char* what, int64_t value, int64_t bound) {
  require(value >= 0 && value < bound, "{} {} is not in [0, {})", what, value, bound);
  return value;
}

// Offsets of sorted rows: non-decreasing, within the rows there are.
inline void check_offsets(const Tensor& offsets, int64_t num_rows) {
  const int32_t* at = offsets.data<int32_t>();
  int64_t last = 0;
  for (int64_t e = 0; e < offsets.dim(0); ++e) {
    require(at[e] >= last && at[e] <= num_rows, "offset {} of expert {} is not in [{}, {}]", at[e], e, last, num_rows);
    last = at[e];
  }
}

// Calls f(A{}, B{}) with the types of two dtypes that share an accumulator type.
template <class F>
void dispatch_mixed(DType a, DType b, F&& f) {
  if (a == DType::f64) {
    f(double{}, double{});
  } else if (a == DType::f32) {
    b == DType::f32 ? f(float{}, float{}) : f(float{}, bf16{});
  } else {
    b == DType::f32 ? f(bf16{}, float{}) : f(bf16{}, bf16{});
  }
}

}  // namespace sluice::ref
