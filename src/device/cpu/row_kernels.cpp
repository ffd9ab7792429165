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

// Sum of squares, in two sets of lanes that take turns.
template <class T>
HWY_INLINE HWY_ATTR float sum_of_squares(const T* x, int64_t n) {
  LaneSums even = zero_sums();
  LaneSums odd = zero_sums();
  int64_t at = 0;
  for (; at + 2 * kSumLanes <= n; at += 2 * kSumLanes) {
    for (int64_t j = 0; j < kSumParts; ++j) {
      const V a = load(x + at + j * kWidth, kWidth);
      const V b = load(x + at + kSumLanes + j * kWidth, kWidth);
      even.part[j] = hn::MulAdd(a, a, even.part[j]);
      odd.part[j] = hn::MulAdd(b, b, odd.part[j]);
    }
  }
  for (; at < n; at += kSumLanes) {
    for (int64_t j = 0, i = at; j < kSumParts && i < n; ++j, i += kWidth) {
      const V a = load(x + i, n - i);
      even.part[j] = hn::MulAdd(a, a, even.part[j]);
    }
  }
  return sum_of(even, odd);
}

// sum = x + add, and the sum of its squares as it is stored.
template <class T>
HWY_INLINE HWY_ATTR float add_and_square(const T* x, const T* add, T* sum, int64_t n) {
  LaneSums squares = zero_sums();
  for (int64_t at = 0; at < n; at += kSumLanes) {
    for (int64_t j = 0, i = at; j < kSumParts && i < n; ++j, i += kWidth) {
      const V s = store(hn::Add(load(x + i, n - i), load(add + i, n - i)), sum + i, n - i);
      squares.part[j] = hn::MulAdd(s, s, squares.part[j]);
    }
  }
  return sum_of(squares);
}

template <class T>
HWY_ATTR void norm_forward(const NormForward<T>& op, int64_t begin, int64_t end) {
  const F f;
  const int64_t dim = op.x.dim;
  for (int64_t r = begin; r < end; ++r) {
    const T* x = op.x[r];
    T* y = op.y[r];
    float squares = 0;
    if (op.sum.data != nullptr) {
      squares = add_and_square(x, op.add[r], op.sum[r], dim);
      x = op.sum[r];
    } else {
      squares = sum_of_squares(x, dim);
    }
    const float rstd = 1.0F / std::sqrt(squares / static_cast<float>(dim) + op.eps);
    op.rstd[r] = rstd;
    const V factor = hn::Set(f, rstd);
    for (int64_t i = 0; i < dim; i += kWidth) {
      store(hn::Mul(hn::Mul(load(x + i, dim - i), factor), load(op.gamma + i, dim - i)), y + i, dim - i);
    }
  }
}

// With xhat = x rstd, g = dy gamma:  dx = residual + rstd (g - xhat mean(g xhat)),  dgamma = sum dy xhat
template <class T>
HWY_ATTR void norm_backward(const NormBackward<T>& op, int64_t begin, int64_t end, float* dgamma) {
  const F f;
  const int64_t dim = op.x.dim;
  std::fill_n(dgamma, dim, 0.0F);
  for (int64_t r = begin; r < end; ++r) {
    const T* x = op.x[r];
    const T* dy = op.dy[r];
    const V rstd = hn::Set(f, op.rstd[r]);
    LaneSums inner = zero_sums();
    for (int64_t at = 0; at < dim; at += kSumLanes) {
      for (int64_t j = 0, i = at; j < kSumParts && i < dim; ++j, i += kWidth) {
        const V t = hn::Mul(load(dy + i, dim - i), hn::Mul(load(x + i, dim - i), rstd));
        inner.part[j] = hn::MulAdd(t, load(op.gamma + i, dim - i), inner.part[j]);
        store(hn::Add(load(dgamma + i, dim - i), t), dgamma + i, dim - i);
      }
    }
    const V mean = hn::Set(f, sum_of(inner) / static_cast<float>(dim));
    const T* residual = op.residual.data != nullptr ? op.residual[r] : nullptr;
    T* dx = op.dx[r];
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

template <class T>
HWY_ATTR void rope(const RopeRows<T>& op, int64_t begin, int64_t end) {
  const F f;
  const int64_t half = op.x.dim / 2;
  const V sign = hn::Set(f, op.inverse ? -1.0F : 1.0F);
  for (int64_t t = begin; t < end; ++t) {
    const float* cos = op.cos_sin + t % op.positions * op.cos_sin_stride;
    const float* sin = cos + half;
    for (int64_t h = 0; h < op.x.heads; ++h) {
      T* x = op.x.data + t * op.x.stride + h * op.x.dim;
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

template <bool kClamped, class T>
HWY_ATTR void swiglu_forward_rows(const SwigluRows<T>& op, int64_t begin, int64_t end) {
  const F f;
  const int64_t dim = op.dim;
  const V limit = hn::Set(f, op.limit);
  const V alpha = hn::Set(f, op.alpha);
  for (int64_t r = begin; r < end; ++r) {
    const T* gate = op.gate_up + r * op.gate_up_stride;
    const T* up = gate + dim;
    T* h = op.h + r * op.h_stride;
    const V weight = hn::Set(f, op.weight != nullptr ? op.weight[r] : 1.0F);
    for (int64_t i = 0; i < dim; i += kWidth) {
      const GatedV x = gated<kClamped>(load(gate + i, dim - i), load(up + i, dim - i), limit, alpha);
      store(hn::Mul(hn::Mul(hn::Mul(x.g, x.s), x.u), weight), h + i, dim - i);
    }
  }
}

// With y = g s u:  dy/dg = u s (1 + alpha g (1 - s)),  dy/du = g s;  none where g or u was clamped.
template <bool kClamped, class T>
HWY_ATTR void swiglu_backward_rows(const SwigluRows<T>& op, int64_t begin, int64_t end) {
  const F f;
  const int64_t dim = op.dim;
  const V one = hn::Set(f, 1.0F);
  const V limit = hn::Set(f, op.limit);
  const V alpha = hn::Set(f, op.alpha);
  for (int64_t r = begin; r < end; ++r) {
    const T* gate = op.gate_up + r * op.gate_up_stride;
    const T* up = gate + dim;
    const T* dh = op.dh + r * op.dh_stride;
    T* dgate = op.dgate_up + r * op.dgate_up_stride;
    T* dup = dgate + dim;
    const V weight = hn::Set(f, op.weight != nullptr ? op.weight[r] : 1.0F);
    LaneSums dweight = zero_sums();
    for (int64_t at = 0; at < dim; at += kSumLanes) {
      for (int64_t j = 0, i = at; j < kSumParts && i < dim; ++j, i += kWidth) {
        const V from_gate = load(gate + i, dim - i);
        const V from_up = load(up + i, dim - i);
        const auto [g, u, s] = gated<kClamped>(from_gate, from_up, limit, alpha);
        const V dy = load(dh + i, dim - i);
        const V silu = hn::Mul(g, s);
        dweight.part[j] = hn::MulAdd(dy, hn::Mul(silu, u), dweight.part[j]);
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
    }
    if (op.dweight != nullptr) op.dweight[r] = sum_of(dweight);
  }
}

template <class T>
HWY_ATTR void swiglu_forward(const SwigluRows<T>& op, int64_t begin, int64_t end) {
  op.clamped ? swiglu_forward_rows<true>(op, begin, end) : swiglu_forward_rows<false>(op, begin, end);
}
template <class T>
HWY_ATTR void swiglu_backward(const SwigluRows<T>& op, int64_t begin, int64_t end) {
  op.clamped ? swiglu_backward_rows<true>(op, begin, end) : swiglu_backward_rows<false>(op, begin, end);
}

template <class T>
constexpr RowKernels<T> row_kernels_of() {
  return {.norm_forward = norm_forward<T>,
          .norm_backward = norm_backward<T>,
          .rope = rope<T>,
          .swiglu_forward = swiglu_forward<T>,
          .swiglu_backward = swiglu_backward<T>};
}

RowKernels<float> row_kernels_f32() {
  return row_kernels_of<float>();
}
RowKernels<bf16> row_kernels_bf16() {
  return row_kernels_of<bf16>();
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
  LaneSums even = zero_sums();
  LaneSums odd = zero_sums();
  int64_t at = 0;
  for (; at + 2 * kSumLanes <= n; at += 2 * kSumLanes) {
    for (int64_t j = 0; j < kSumParts; ++j) {
      const int64_t i = at + j * kWidth;
      const V a = exp(hn::Sub(hn::LoadU(f, x + i), shift));
      const V b = exp(hn::Sub(hn::LoadU(f, x + i + kSumLanes), shift));
      if (p != nullptr) {
        hn::StoreU(a, f, p + i);
        hn::StoreU(b, f, p + i + kSumLanes);
      }
      even.part[j] = hn::Add(even.part[j], a);
      odd.part[j] = hn::Add(odd.part[j], b);
    }
  }
  for (; at < n; at += kSumLanes) {
    for (int64_t j = 0, i = at; j < kSumParts && i < n; ++j, i += kWidth) {
      const V a = exp(hn::Sub(load(x + i, n - i), shift));
      if (p != nullptr) store(a, p + i, n - i);
      const V in_row = n - i >= kWidth ? a : hn::IfThenElseZero(hn::FirstN(f, static_cast<size_t>(n - i)), a);
      even.part[j] = hn::Add(even.part[j], in_row);
    }
  }
  return sum_of(even, odd);
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

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(row_kernels_f32);
HWY_EXPORT(row_kernels_bf16);
HWY_EXPORT(sigmoid_scores_simd);
HWY_EXPORT(softmax_simd);
HWY_EXPORT(cross_entropy_simd);
HWY_EXPORT(add_z_gradient_simd);

template <>
RowKernels<float> row_kernels() {
  return HWY_DYNAMIC_DISPATCH(row_kernels_f32)();
}
template <>
RowKernels<bf16> row_kernels() {
  return HWY_DYNAMIC_DISPATCH(row_kernels_bf16)();
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

}  // namespace sluice::cpu
#endif
