#include "device/cuda/cuda_backend.h"
#include "device/cuda/kernel.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = 256;  // at most

template <class A>
__device__ __forceinline__ A sigmoid(A x) {
  return 1 / (1 + exp(-x));
}

// The product of a gate and an up value in either form, and its derivatives.
template <class A>
struct Gated {
  A value, dgate, dup;
};
template <bool kClamped, class A>
__device__ __forceinline__ Gated<A> gated(A gate, A up, A limit, A alpha) {
  if constexpr (!kClamped) {
    const A s = sigmoid(gate);
    return {gate * s * up, up * s * (1 + gate * (1 - s)), gate * s};
  } else {
    const A g = gate > limit ? limit : gate, u = up > limit ? limit : up < -limit ? -limit : up;
    const A s = sigmoid(alpha * g);
    return {g * s * (u + 1), gate > limit ? A{0} : (u + 1) * s * (1 + alpha * g * (1 - s)), u != up ? A{0} : g * s};
  }
}

// A thread makes N columns of a row.
template <class T, int N, bool kClamped>
__global__ void __launch_bounds__(kThreads)
    swiglu_forward(T* h, int64_t h_stride, const T* gate_up, int64_t in_stride, const accumulator_t<T>* weight,
                   int64_t rows, int64_t width, accumulator_t<T> limit, accumulator_t<T> alpha) {
  using A = accumulator_t<T>;
  const int64_t per_row = width / N;
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows * per_row; i += step) {
    const int64_t row = i / per_row, col = i % per_row * N;
    const T* in = gate_up + row * in_stride + col;
    const auto gate = load_piece<T, N>(in), up = load_piece<T, N>(in + width);
    const A w = weight != nullptr ? weight[row] : A{1};
    Piece<T, N> out;
    for (int j = 0; j < N; ++j) {
      out.at[j] = store<T>(gated<kClamped>(load(gate.at[j]), load(up.at[j]), limit, alpha).value * w);
    }
    store_piece(h + row * h_stride + col, out);
  }
}

// A block makes a row, so that dweight is one sum.
template <class T, int N, bool kClamped>
__global__ void __launch_bounds__(kThreads)
    swiglu_backward(T* dgate_up, int64_t out_stride, accumulator_t<T>* dweight, const T* dh, int64_t dh_stride,
                    const T* gate_up, int64_t in_stride, const accumulator_t<T>* weight, int64_t width,
                    accumulator_t<T> limit, accumulator_t<T> alpha) {
  using A = accumulator_t<T>;
  const int64_t row = blockIdx.x;
  const T* in = gate_up + row * in_stride;
  T* out = dgate_up + row * out_stride;
  const A w = weight != nullptr ? weight[row] : A{1};
  A sum = 0;
  for (int64_t col = int64_t{threadIdx.x} * N; col < width; col += int64_t{blockDim.x} * N) {
    const auto gate = load_piece<T, N>(in + col), up = load_piece<T, N>(in + width + col);
    const auto upstream = load_piece<T, N>(dh + row * dh_stride + col);
    Piece<T, N> dgate, dup;
    for (int j = 0; j < N; ++j) {
      const Gated<A> y = gated<kClamped>(load(gate.at[j]), load(up.at[j]), limit, alpha);
      const A d = load(upstream.at[j]);
      sum += d * y.value;
      dgate.at[j] = store<T>(d * w * y.dgate);
      dup.at[j] = store<T>(d * w * y.dup);
    }
    store_piece(out + col, dgate);
    store_piece(out + width + col, dup);
  }
  sum = block_sum(sum);
  if (dweight != nullptr && threadIdx.x == 0) dweight[row] = sum;
}

template <class T>
T* optional(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

}  // namespace

void CudaBackend::execute(const SwigluForward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.h.dtype(), [&]<class T>(T) {
    const int64_t rows = op.h.dim(0), width = op.h.dim(1);
    const bool clamped = op.form.limit != 0;
    with_pieces<T>(in_pieces(op.h) && in_pieces(op.gate_up), [&](auto n) {
      constexpr int N = decltype(n)::value;
      launch(SwigluForward::name, clamped ? swiglu_forward<T, N, true> : swiglu_forward<T, N, false>,
             blocks_for(rows * width / N, kThreads, device_.num_sms()), kThreads, 0, device_.stream(), op.h.data<T>(),
             op.h.stride(), op.gate_up.data<T>(), op.gate_up.stride(), optional<accumulator_t<T>>(op.weight), rows,
             width, op.form.limit, op.form.alpha);
    });
  });
}

void CudaBackend::execute(const SwigluBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.dh.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    const int64_t rows = op.dh.dim(0), width = op.dh.dim(1);
    const bool clamped = op.form.limit != 0;
    with_pieces<T>(in_pieces(op.dgate_up) && in_pieces(op.gate_up) && in_pieces(op.dh), [&](auto n) {
      constexpr int N = decltype(n)::value;
      launch(SwigluBackward::name, clamped ? swiglu_backward<T, N, true> : swiglu_backward<T, N, false>, blocks(rows),
             row_threads(width / N, kThreads), 0, device_.stream(), op.dgate_up.data<T>(), op.dgate_up.stride(),
             optional<A>(op.dweight), op.dh.data<T>(), op.dh.stride(), op.gate_up.data<T>(), op.gate_up.stride(),
             optional<A>(op.weight), width, op.form.limit, op.form.alpha);
    });
  });
}

}  // namespace sluice::cuda
