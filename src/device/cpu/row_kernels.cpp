#include "device/cpu/row_kernels.h"

#include <algorithm>
#include <cmath>

#include "device/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "device/cpu/row_kernels.cpp"
#include <hwy/foreach_target.h>  // compiles this file once per target

#include "device/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

// ---- RMSNorm

HWY_ATTR void norm_forward_simd(const NormForward& op, int64_t begin, int64_t end) {
  const F f;
  const int64_t dim = op.x.dim;
  for (int64_t r = begin; r < end; ++r) {
    const float* x = op.x[r];
    float* y = op.y[r];
    V squares0 = hn::Zero(f);
    V squares1 = hn::Zero(f);
    if (op.sum.data != nullptr) {
      float* sum = op.sum[r];
      const float* add = op.add[r];
      for (int64_t i = 0; i < dim; i += kWidth) {
        const V s = hn::Add(load(x + i, dim - i), load(add + i, dim - i));
        store(s, sum + i, dim - i);
        squares0 = hn::MulAdd(s, s, squares0);
      }
      x = sum;
    } else {
      int64_t i = 0;
      for (; i + 2 * kWidth <= dim; i += 2 * kWidth) {
        const V a = hn::LoadU(f, x + i);
        const V b = hn::LoadU(f, x + i + kWidth);
        squares0 = hn::MulAdd(a, a, squares0);
        squares1 = hn::MulAdd(b, b, squares1);
      }
      for (; i < dim; i += kWidth) {
        const V a = load(x + i, dim - i);
        squares0 = hn::MulAdd(a, a, squares0);
      }
    }
    const float mean = sum_of(hn::Add(squares0, squares1)) / static_cast<float>(dim);
    const float rstd = 1.0F / std::sqrt(mean + op.eps);
    op.rstd[r] = rstd;
    const V factor = hn::Set(f, rstd);
    for (int64_t i = 0; i < dim; i += kWidth) {
      store(hn::Mul(hn::Mul(load(x + i, dim - i), factor), load(op.gamma + i, dim - i)), y + i, dim - i);
    }
  }
}

// With xhat = x rstd, g = dy gamma:  dx = residual + rstd (g - xhat mean(g xhat)),  dgamma = sum dy xhat
HWY_ATTR void norm_backward_simd(const NormBackward& op, int64_t begin, int64_t end, float* dgamma) {
  const F f;
  const int64_t dim = op.x.dim;
  std::fill_n(dgamma, dim, 0.0F);
  for (int64_t r = begin; r < end; ++r) {
    const float* x = op.x[r];
    const float* dy = op.dy[r];
    const V rstd = hn::Set(f, op.rstd[r]);
    V inner = hn::Zero(f);
    for (int64_t i = 0; i < dim; i += kWidth) {
      const V t = hn::Mul(load(dy + i, dim - i), hn::Mul(load(x + i, dim - i), rstd));
      inner = hn::MulAdd(t, load(op.gamma + i, dim - i), inner);
      store(hn::Add(load(dgamma + i, dim - i), t), dgamma + i, dim - i);
    }
    const V mean = hn::Set(f, sum_of(inner) / static_cast<float>(dim));
    const float* residual = op.residual.data != nullptr ? op.residual[r] : nullptr;
    float* dx = op.dx[r];
    for (int64_t i = 0; i < dim; i += kWidth) {
      const V g = hn::Mul(load(dy + i, dim - i), load(op.gamma + i, dim - i));
      const V xhat = hn::Mul(load(x + i, dim - i), rstd);
      V own = hn::Mul(rstd, hn::NegMulAdd(xhat, mean, g));
      if (residual != nullptr) own = hn::Add(load(residual + i, dim - i), own);
      store(own, dx + i, dim - i);
    }
  }
}

// ---- RoPE

HWY_ATTR void rope_simd(const RopeRows& op, int64_t begin, int64_t end) {
  const F f;
  const int64_t half = op.x.dim / 2;
  const V sign = hn::Set(f, op.inverse ? -1.0F : 1.0F);
  for (int64_t t = begin; t < end; ++t) {
    const float* cos = op.cos_sin + t % op.positions * op.cos_sin_stride;
    const float* sin = cos + half;
    for (int64_t h = 0; h < op.x.heads; ++h) {
      float* x = op.x.data + t * op.x.stride + h * op.x.dim;
      for (int64_t i = 0; i < half; i += kWidth) {
        const V c = load(cos + i, half - i);
        const V s = hn::Mul(sign, load(sin + i, half - i));
        const V first = load(x + i, half - i);
        const V second = load(x + half + i, half - i);
        store(hn::NegMulAdd(second, s, hn::Mul(first, c)), x + i, half - i);
        store(hn::MulAdd(first, s, hn::Mul(second, c)), x + half + i, half - i);
      }
    }
  }
}

// ---- SwiGLU

// Gates, up values and sigmoids, clamped and shifted if the form says so (ops/swiglu.h).
struct GatedV {
  V g;
  V u;
  V s;
};
template <bool kClamped>
HWY_INLINE HWY_ATTR GatedV gated(V gate, V up, V limit, V alpha) {
  if constexpr (kClamped) {
    const F f;
    const V g = hn::Min(limit, gate);
    const V u = hn::Max(hn::Neg(limit), hn::Min(limit, up));
    return {g, hn::Add(u, hn::Set(f, 1.0F)), sigmoid(hn::Mul(alpha, g))};
  } else {
    return {gate, up, sigmoid(gate)};
  }
}

template <bool kClamped>
HWY_ATTR void swiglu_forward_rows(const SwigluRows& op, int64_t begin, int64_t end) {
  const F f;
  const int64_t dim = op.dim;
  const V limit = hn::Set(f, op.limit);
  const V alpha = hn::Set(f, op.alpha);
  for (int64_t r = begin; r < end; ++r) {
    const float* gate = op.gate_up + r * op.gate_up_stride;
    const float* up = gate + dim;
    float* h = op.h + r * op.h_stride;
    const V weight = hn::Set(f, op.weight != nullptr ? op.weight[r] : 1.0F);
    for (int64_t i = 0; i < dim; i += kWidth) {
      const GatedV x = gated<kClamped>(load(gate + i, dim - i), load(up + i, dim - i), limit, alpha);
      store(hn::Mul(hn::Mul(hn::Mul(x.g, x.s), x.u), weight), h + i, dim - i);
    }
  }
}

// With y = g s u:  dy/dg = u s (1 + alpha g (1 - s)),  dy/du = g s;  none where g or u was clamped.
template <bool kClamped>
HWY_ATTR void swiglu_backward_rows(const SwigluRows& op, int64_t begin, int64_t end) {
  const F f;
  const int64_t dim = op.dim;
  const V one = hn::Set(f, 1.0F);
  const V limit = hn::Set(f, op.limit);
  const V alpha = hn::Set(f, op.alpha);
  for (int64_t r = begin; r < end; ++r) {
    const float* gate = op.gate_up + r * op.gate_up_stride;
    const float* up = gate + dim;
    const float* dh = op.dh + r * op.dh_stride;
    float* dgate = op.dgate_up + r * op.dgate_up_stride;
    float* dup = dgate + dim;
    const V weight = hn::Set(f, op.weight != nullptr ? op.weight[r] : 1.0F);
    V dweight = hn::Zero(f);
    for (int64_t i = 0; i < dim; i += kWidth) {
      const V from_gate = load(gate + i, dim - i);
      const V from_up = load(up + i, dim - i);
      const auto [g, u, s] = gated<kClamped>(from_gate, from_up, limit, alpha);
      const V dy = load(dh + i, dim - i);
      const V silu = hn::Mul(g, s);
      dweight = hn::MulAdd(dy, hn::Mul(silu, u), dweight);
      const V dyw = hn::Mul(dy, weight);
      const V slope = hn::Mul(s, hn::MulAdd(kClamped ? hn::Mul(alpha, g) : g, hn::Sub(one, s), one));
      V dg = hn::Mul(hn::Mul(dyw, u), slope);
      V du = hn::Mul(dyw, silu);
      if constexpr (kClamped) {
        dg = hn::IfThenZeroElse(hn::Gt(from_gate, limit), dg);
        du = hn::IfThenZeroElse(hn::Gt(hn::Abs(from_up), limit), du);
      }
      store(dg, dgate + i, dim - i);
      store(du, dup + i, dim - i);
    }
    if (op.dweight != nullptr) op.dweight[r] = sum_of(dweight);
  }
}

HWY_ATTR void swiglu_forward_simd(const SwigluRows& op, int64_t begin, int64_t end) {
  op.clamped ? swiglu_forward_rows<true>(op, begin, end) : swiglu_forward_rows<false>(op, begin, end);
}
HWY_ATTR void swiglu_backward_simd(const SwigluRows& op, int64_t begin, int64_t end) {
  op.clamped ? swiglu_backward_rows<true>(op, begin, end) : swiglu_backward_rows<false>(op, begin, end);
}

// ---- Sigmoid router

HWY_ATTR void sigmoid_scores_simd(const float* logits, const float* bias, float* scores, float* choice, int64_t n) {
  for (int64_t i = 0; i < n; i += kWidth) {
    const V s = sigmoid(load(logits + i, n - i));
    store(s, scores + i, n - i);
    store(hn::Add(s, load(bias + i, n - i)), choice + i, n - i);
  }
}

// ---- Softmax

HWY_ATTR float max_of(const float* x, int64_t n) {
  const F f;
  if (n < kWidth) return *std::max_element(x, x + n);
  V most0 = hn::LoadU(f, x);
  V most1 = most0;
  int64_t i = 0;
  for (; i + 2 * kWidth <= n; i += 2 * kWidth) {
    most0 = hn::Max(most0, hn::LoadU(f, x + i));
    most1 = hn::Max(most1, hn::LoadU(f, x + i + kWidth));
  }
  // What is left overlaps vectors already seen, which does not change a maximum.
  for (; i < n; i += kWidth) most0 = hn::Max(most0, hn::LoadU(f, x + std::min(i, n - kWidth)));
  return hn::GetLane(hn::MaxOfLanes(f, hn::Max(most0, most1)));
}

// Sum of p[i] = exp(x[i] - most); p is written only if it is not null.
HWY_ATTR float sum_exp(const float* x, float* p, int64_t n, float most) {
  const F f;
  const V shift = hn::Set(f, most);
  V sum0 = hn::Zero(f);
  V sum1 = hn::Zero(f);
  int64_t i = 0;
  for (; i + 2 * kWidth <= n; i += 2 * kWidth) {
    const V a = exp(hn::Sub(hn::LoadU(f, x + i), shift));
    const V b = exp(hn::Sub(hn::LoadU(f, x + i + kWidth), shift));
    if (p != nullptr) {
      hn::StoreU(a, f, p + i);
      hn::StoreU(b, f, p + i + kWidth);
    }
    sum0 = hn::Add(sum0, a);
    sum1 = hn::Add(sum1, b);
  }
  for (; i < n; i += kWidth) {
    const V a = exp(hn::Sub(load(x + i, n - i), shift));
    if (p != nullptr) store(a, p + i, n - i);
    sum0 = hn::Add(sum0, n - i >= kWidth ? a : hn::IfThenElseZero(hn::FirstN(f, static_cast<size_t>(n - i)), a));
  }
  return sum_of(hn::Add(sum0, sum1));
}

HWY_ATTR void scale_row(float* x, int64_t n, float factor) {
  const F f;
  const V by = hn::Set(f, factor);
  for (int64_t i = 0; i < n; i += kWidth) store(hn::Mul(load(x + i, n - i), by), x + i, n - i);
}

HWY_ATTR void softmax_simd(const float* x, float* p, int64_t n) {
  const float sum = sum_exp(x, p, n, max_of(x, n));
  scale_row(p, n, 1.0F / sum);
}

HWY_ATTR float cross_entropy_simd(float* x, int64_t n, int64_t label, bool grad, float scale, float z_coef) {
  const float most = max_of(x, n);
  const float at_label = x[label];
  const float sum = sum_exp(x, grad ? x : nullptr, n, most);
  if (grad) {
    const float of_softmax = z_coef == 0 ? scale : scale * (1.0F + 2.0F * z_coef * (most + std::log(sum)));
    scale_row(x, n, of_softmax / sum);
    x[label] -= scale;
  }
  return std::log(sum) + (most - at_label);
}

HWY_ATTR void add_z_gradient_simd(float* dx, const float* x, int64_t n, float factor) {
  const F f;
  const float most = max_of(x, n), sum = sum_exp(x, nullptr, n, most);
  const V shift = hn::Set(f, most), by = hn::Set(f, factor * (most + std::log(sum)) / sum);
  for (int64_t i = 0; i < n; i += kWidth) {
    const V e = exp(hn::Sub(load(x + i, n - i), shift));
    store(hn::MulAdd(e, by, load(dx + i, n - i)), dx + i, n - i);
  }
}

// ---- Streams

HWY_ATTR void adamw_simd(const AdamWStep& step, float* w, float* m, float* v, const float* g, int64_t n) {
  const F f;
  const V beta1 = hn::Set(f, step.beta1);
  const V beta2 = hn::Set(f, step.beta2);
  const V new1 = hn::Set(f, step.new1);
  const V new2 = hn::Set(f, step.new2);
  const V clip = hn::Set(f, step.clip);
  const V eps = hn::Set(f, step.eps);
  const V rate = hn::Set(f, step.rate);
  const V coupled = hn::Set(f, step.coupled);
  const V kept = hn::Set(f, 1.0F - step.decoupled);
  const V inverse2 = hn::Set(f, step.inverse_correction2);
  for (int64_t i = 0; i < n; i += kWidth) {
    const int64_t left = n - i;
    const V old = load(w + i, left);
    const V gradient = hn::MulAdd(coupled, old, hn::Mul(load(g + i, left), clip));
    const V first = hn::MulAdd(beta1, load(m + i, left), hn::Mul(new1, gradient));
    const V second = hn::MulAdd(beta2, load(v + i, left), hn::Mul(new2, hn::Mul(gradient, gradient)));
    const V scale = hn::Add(hn::Sqrt(hn::Mul(second, inverse2)), eps);
    store(hn::Sub(hn::Mul(old, kept), hn::Div(hn::Mul(rate, first), scale)), w + i, left);
    store(first, m + i, left);
    store(second, v + i, left);
  }
}

HWY_ATTR void add_simd(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += kWidth) {
    store(hn::Add(load(y + i, n - i), load(x + i, n - i)), y + i, n - i);
  }
}

// Sixteen sums whatever the vector's width, so that the result is the same on every machine.
template <bool kSquares>
HWY_ATTR double sum_lanes(const float* x, int64_t n) {
  const hn::ScalableTag<double> f64;
  const hn::Rebind<float, decltype(f64)> f32;
  constexpr int64_t kLanes = 16;
  constexpr auto kStep = static_cast<int64_t>(hn::MaxLanes(hn::ScalableTag<double>()));
  constexpr int64_t kVectors = kLanes / kStep;
  hn::Vec<decltype(f64)> sums[kVectors];
#pragma GCC unroll 16
  for (int64_t j = 0; j < kVectors; ++j) sums[j] = hn::Zero(f64);
  int64_t i = 0;
#pragma GCC unroll 1
  for (; i + kLanes <= n; i += kLanes) {
#pragma GCC unroll 16
    for (int64_t j = 0; j < kVectors; ++j) {
      const auto value = hn::PromoteTo(f64, hn::LoadU(f32, x + i + j * kStep));
      sums[j] = hn::Add(sums[j], kSquares ? hn::Mul(value, value) : value);
    }
  }
  double lanes[kLanes];
  for (int64_t j = 0; j < kVectors; ++j) hn::StoreU(sums[j], f64, lanes + j * kStep);
  for (int64_t j = 0; i < n; ++i, ++j) lanes[j] += kSquares ? double{x[i]} * double{x[i]} : double{x[i]};
  double total = 0;
  for (const double part : lanes) total += part;
  return total;
}

HWY_ATTR double sum_simd(const float* x, int64_t n, bool squares) {
  return squares ? sum_lanes<true>(x, n) : sum_lanes<false>(x, n);
}

HWY_ATTR void sum_rows_simd(float* y, const float* const* rows, int64_t count, int64_t n) {
  const F f;
  for (int64_t i = 0; i < n; i += kWidth) {
    V total = hn::Zero(f);
    for (int64_t j = 0; j < count; ++j) total = hn::Add(total, load(rows[j] + i, n - i));
    store(total, y + i, n - i);
  }
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(norm_forward_simd);
HWY_EXPORT(norm_backward_simd);
HWY_EXPORT(rope_simd);
HWY_EXPORT(swiglu_forward_simd);
HWY_EXPORT(swiglu_backward_simd);
HWY_EXPORT(sigmoid_scores_simd);
HWY_EXPORT(softmax_simd);
HWY_EXPORT(cross_entropy_simd);
HWY_EXPORT(add_z_gradient_simd);
HWY_EXPORT(adamw_simd);
HWY_EXPORT(add_simd);
HWY_EXPORT(sum_simd);
HWY_EXPORT(sum_rows_simd);

void norm_forward(const NormForward& op, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(norm_forward_simd)(op, begin, end);
}
void norm_backward(const NormBackward& op, int64_t begin, int64_t end, float* dgamma) {
  HWY_DYNAMIC_DISPATCH(norm_backward_simd)(op, begin, end, dgamma);
}
void rope(const RopeRows& op, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(rope_simd)(op, begin, end);
}
void swiglu_forward(const SwigluRows& op, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(swiglu_forward_simd)(op, begin, end);
}
void swiglu_backward(const SwigluRows& op, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(swiglu_backward_simd)(op, begin, end);
}
void sigmoid_scores(const float* logits, const float* bias, float* scores, float* choice, int64_t n) {
  HWY_DYNAMIC_DISPATCH(sigmoid_scores_simd)(logits, bias, scores, choice, n);
}
void softmax(const float* x, float* p, int64_t n) {
  HWY_DYNAMIC_DISPATCH(softmax_simd)(x, p, n);
}
float cross_entropy(float* x, int64_t n, int64_t label, bool grad, float scale, float z_coef) {
  return HWY_DYNAMIC_DISPATCH(cross_entropy_simd)(x, n, label, grad, scale, z_coef);
}
void add_z_gradient(float* dx, const float* x, int64_t n, float factor) {
  HWY_DYNAMIC_DISPATCH(add_z_gradient_simd)(dx, x, n, factor);
}
void adamw(const AdamWStep& step, float* w, float* m, float* v, const float* g, int64_t n) {
  HWY_DYNAMIC_DISPATCH(adamw_simd)(step, w, m, v, g, n);
}
void add(float* y, const float* x, int64_t n) {
  HWY_DYNAMIC_DISPATCH(add_simd)(y, x, n);
}
double sum(const float* x, int64_t n, bool squares) {
  return HWY_DYNAMIC_DISPATCH(sum_simd)(x, n, squares);
}
void sum_rows(float* y, const float* const* rows, int64_t count, int64_t n) {
  HWY_DYNAMIC_DISPATCH(sum_rows_simd)(y, rows, count, n);
}

}  // namespace sluice::cpu
#endif
