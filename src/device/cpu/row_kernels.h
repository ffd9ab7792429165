// Single-threaded SIMD loops over ranges of rows or elements, f32; the backend runs ranges in the pool.
#pragma once

#include <cstdint>

namespace sluice::cpu {

// Vectors of `dim` floats: number r is head r % heads of row r / heads, whose rows are `stride` apart.
template <class T>
struct Vectors {
  T* data = nullptr;
  int64_t stride = 0;
  int64_t heads = 1;
  int64_t dim = 0;
  T* operator[](int64_t r) const { return data + r / heads * stride + r % heads * dim; }
};

struct NormForward {
  Vectors<float> y;
  float* rstd = nullptr;
  Vectors<const float> x;
  const float* gamma = nullptr;
  float eps = 0;
  // The sum that is normed instead of x, if wanted: sum = x + add.
  Vectors<float> sum;
  Vectors<const float> add;
};
void norm_forward(const NormForward& op, int64_t begin, int64_t end);

struct NormBackward {
  Vectors<float> dx;
  Vectors<const float> dy;
  Vectors<const float> x;
  const float* rstd = nullptr;
  const float* gamma = nullptr;
  Vectors<const float> residual;  // or null
};
// dgamma = (not +=) the sum over the range.
void norm_backward(const NormBackward& op, int64_t begin, int64_t end, float* dgamma);

// Rotates the heads of rows [begin, end) of x; cos_sin has `positions` rows of x.dim.
struct RopeRows {
  Vectors<float> x;
  const float* cos_sin = nullptr;
  int64_t cos_sin_stride = 0;
  int64_t positions = 0;
  bool inverse = false;
};
void rope(const RopeRows& op, int64_t begin, int64_t end);

struct SwigluRows {
  int64_t dim = 0;
  bool clamped = false;  // the form with a limit
  float limit = 0;
  float alpha = 1;
  float* h = nullptr;  // forward
  int64_t h_stride = 0;
  const float* gate_up = nullptr;
  int64_t gate_up_stride = 0;
  const float* weight = nullptr;  // or null
  const float* dh = nullptr;      // backward
  int64_t dh_stride = 0;
  float* dgate_up = nullptr;
  int64_t dgate_up_stride = 0;
  float* dweight = nullptr;  // or null
};
void swiglu_forward(const SwigluRows& op, int64_t begin, int64_t end);
void swiglu_backward(const SwigluRows& op, int64_t begin, int64_t end);

// scores = sigmoid(logits), choice = scores + bias
void sigmoid_scores(const float* logits, const float* bias, float* scores, float* choice, int64_t n);

// p = softmax(x)
void softmax(const float* x, float* p, int64_t n);
// Returns lse - x[label], lse = logsumexp(x). With `grad`, x becomes
// ((1 + 2 z_coef lse) softmax(x) - onehot(label)) scale.
float cross_entropy(float* x, int64_t n, int64_t label, bool grad, float scale, float z_coef);
// dx += factor lse softmax(x), lse = log sum exp(x): the gradient of factor / 2 lse^2
void add_z_gradient(float* dx, const float* x, int64_t n, float factor);

struct AdamWStep {
  float beta1 = 0;
  float beta2 = 0;
  float new1 = 0;  // 1 - beta1
  float new2 = 0;  // 1 - beta2
  float eps = 0;
  float coupled = 0;    // decay that is added to the gradient, of the weight
  float decoupled = 0;  // learning rate x decay of the weight itself
  float clip = 0;
  float rate = 0;                 // learning rate / bias correction 1
  float inverse_correction2 = 0;  // 1 / bias correction 2
};
void adamw(const AdamWStep& step, float* w, float* m, float* v, const float* g, int64_t n);

// y += x
void add(float* y, const float* x, int64_t n);

// Sum of x or of its squares, in f64 lanes of fixed number.
double sum(const float* x, int64_t n, bool squares);

// y[d] = sum of rows[j][d], j ascending, for `count` rows.
void sum_rows(float* y, const float* const* rows, int64_t count, int64_t n);

}  // namespace sluice::cpu
