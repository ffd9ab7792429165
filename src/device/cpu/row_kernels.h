// Single-threaded SIMD loops over ranges of rows; the backend runs ranges in the pool. Rows are of a storage type T,
// f32 or bf16; arithmetic, statistics and routing weights are f32.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace sluice::cpu {

// Vectors of `dim` numbers: number r is head r % heads of row r / heads, whose rows are `stride` apart.
template <class T>
struct Vectors {
  T* data = nullptr;
  int64_t stride = 0;
  int64_t heads = 1;
  int64_t dim = 0;
  T* operator[](int64_t r) const { return data + r / heads * stride + r % heads * dim; }
};

template <class T>
struct NormForward {
  Vectors<T> y;
  float* rstd = nullptr;
  Vectors<const T> x;
  const T* gamma = nullptr;
  float eps = 0;
  // What is normed instead of x, if wanted: sum = x + add, as it is stored.
  Vectors<T> sum;
  Vectors<const T> add;
};

template <class T>
struct NormBackward {
  Vectors<T> dx;
  Vectors<const T> dy;
  Vectors<const T> x;
  const float* rstd = nullptr;
  const T* gamma = nullptr;
  Vectors<const T> residual;  // or null
};

// Rotates the heads of rows [begin, end) of x; cos_sin has `positions` rows of x.dim.
template <class T>
struct RopeRows {
  Vectors<T> x;
  const float* cos_sin = nullptr;
  int64_t cos_sin_stride = 0;
  int64_t positions = 0;
  bool inverse = false;
};

template <class T>
struct SwigluRows {
  int64_t dim = 0;
  bool clamped = false;  // the form with a limit
  float limit = 0;
  float alpha = 1;
  T* h = nullptr;  // forward
  int64_t h_stride = 0;
  const T* gate_up = nullptr;
  int64_t gate_up_stride = 0;
  const float* weight = nullptr;  // or null
  const T* dh = nullptr;          // backward
  int64_t dh_stride = 0;
  T* dgate_up = nullptr;
  int64_t dgate_up_stride = 0;
  float* dweight = nullptr;  // or null
};

template <class T>
struct RowKernels {
  void (*norm_forward)(const NormForward<T>& op, int64_t begin, int64_t end);
  // dgamma = (not +=) the sum over the range.
  void (*norm_backward)(const NormBackward<T>& op, int64_t begin, int64_t end, float* dgamma);
  void (*rope)(const RopeRows<T>& op, int64_t begin, int64_t end);
  void (*swiglu_forward)(const SwigluRows<T>& op, int64_t begin, int64_t end);
  void (*swiglu_backward)(const SwigluRows<T>& op, int64_t begin, int64_t end);
};
// Of the best instruction set that this machine has.
template <class T>
RowKernels<T> row_kernels();

// scores = sigmoid(logits), choice = scores + bias
void sigmoid_scores(const float* logits, const float* bias, float* scores, float* choice, int64_t n);

// p = softmax(x)
void softmax(const float* x, float* p, int64_t n);
// Returns lse - x[label], lse = logsumexp(x). With `grad`, x becomes
// ((1 + 2 z_coef lse) softmax(x) - onehot(label)) scale.
float cross_entropy(float* x, int64_t n, int64_t label, bool grad, float scale, float z_coef);
// dx += factor lse softmax(x), lse = log sum exp(x): the gradient of factor / 2 lse^2
void add_z_gradient(float* dx, const float* x, int64_t n, float factor);

}  // namespace sluice::cpu
