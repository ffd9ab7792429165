#include <limits>

#include "device/cuda/cuda_backend.h"
#include "device/cuda/gemm.h"
#include "device/cuda/kernel.h"
#include "device/cuda/scratch.h"
namespace sluice::cuda {

namespace {

// A block makes a row, with at most so many threads, each of which has a few pieces on the way at a time.
template <class T>
constexpr int kThreads = sizeof(T) == 8 ? 512 : 1024;
constexpr int kPieces = 4;

// Logits are far inside the range of an f32, and sums of their exponentials need no last bit.
__device__ __forceinline__ float fast_exp(float x) {
  return __expf(x);
}
__device__ __forceinline__ double fast_exp(double x) {
  return exp(x);
}

// The largest value so far, and the sum of exp(x - most). Begins with a finite number: no difference of infinities.
template <class A>
struct Softmax {
  A most = std::numeric_limits<A>::lowest();
  A sum = 0;

  template <int N>
  __device__ __forceinline__ void add(const A (&x)[N]) {
    A top = most;
    for (int i = 0; i < N; ++i) top = x[i] > top || x[i] != x[i] ? x[i] : top;
    sum *= fast_exp(most - top);
    for (int i = 0; i < N; ++i) sum += fast_exp(x[i] - top);
    most = top;
  }
  __device__ __forceinline__ void over_block() {
    const A top = block_max(most);
    sum = block_sum(sum * fast_exp(most - top));
    most = top;
  }
};

// Turns a row of logits into dlogits, unless it only evaluates. Rows are made of pieces, but for what is left behind
// the last whole one.
template <class T>
__global__ void __launch_bounds__(kThreads<T>)
    cross_entropy(T* logits, int64_t stride, accumulator_t<T>* loss, const int32_t* labels, const double* grad_scale,
                  double z_coef, int64_t vocab, bool train, Fault* fault) {
  using A = accumulator_t<T>;
  constexpr int N = kPiece<T>;
  const int64_t row = blockIdx.x;
  T* x = logits + row * stride;
  const int64_t label = labels[row];
  const int64_t in_pieces = vocab / N * N;
  const int64_t first = int64_t{threadIdx.x} * N, step = int64_t{blockDim.x} * N;

  if (label < 0 || label >= vocab) {
    if (label != kIgnoredLabel && threadIdx.x == 0) report(fault, FaultKind::label, label, vocab);
    if (threadIdx.x == 0) loss[row] = 0;
    if (!train) return;
    for (int64_t col = first; col < in_pieces; col += step) store_piece(x + col, Piece<T, N>{});
    for (int64_t col = in_pieces + threadIdx.x; col < vocab; col += blockDim.x) x[col] = T{};
    return;
  }

  const auto each_piece = [&](auto&& f) {
    for (int64_t at = first; at < in_pieces; at += kPieces * step) {
      Piece<T, N> held[kPieces] = {};
      for (int p = 0; p < kPieces; ++p) {
        if (at + p * step < in_pieces) held[p] = load_piece<T, N>(x + at + p * step);
      }
      for (int p = 0; p < kPieces; ++p) {
        if (at + p * step < in_pieces) f(at + p * step, held[p]);
      }
    }
  };

  const A logit = load(x[label]);
  Softmax<A> softmax;
  each_piece([&](int64_t /*col*/, const Piece<T, N>& piece) {
    A values[N];
    for (int j = 0; j < N; ++j) values[j] = load(piece.at[j]);
    softmax.add(values);
  });
  for (int64_t col = in_pieces + threadIdx.x; col < vocab; col += blockDim.x) {
    const A values[1] = {load(x[col])};
    softmax.add(values);
  }
  softmax.over_block();
  // logsumexp(x) - x[label], without the rounding of a sum with a large `most`.
  if (threadIdx.x == 0) loss[row] = log(softmax.sum) + (softmax.most - logit);
  if (!train) return;

  const A scale = static_cast<A>(grad_scale[0]);
  const A lse = log(softmax.sum) + softmax.most;
  const A of_softmax = z_coef == 0 ? scale : scale * (1 + 2 * static_cast<A>(z_coef) * lse);
  const A factor = of_softmax / softmax.sum;
  const auto gradient = [&](T value, int64_t col) {
    const A g = fast_exp(load(value) - softmax.most) * factor;
    return store<T>(col == label ? g - scale : g);
  };
  each_piece([&](int64_t col, Piece<T, N>& piece) {
    for (int j = 0; j < N; ++j) piece.at[j] = gradient(piece.at[j], col + j);
    store_piece(x + col, piece);
  });
  for (int64_t col = in_pieces + threadIdx.x; col < vocab; col += blockDim.x) x[col] = gradient(x[col], col);
}

}  // namespace

KernelSet CudaBackend::execute(const HeadLoss& op, const Tensor& scratch) {
  const int64_t num_tokens = op.x.dim(0), vocab = op.w.dim(0), chunk = gpu::head_chunk_rows(op);
  const bool train = op.dw.defined();
  KernelSet products;
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    for (int64_t begin = 0; begin < num_tokens; begin += chunk) {
      const int64_t rows = begin + chunk < num_tokens ? chunk : num_tokens - begin;
      const Tensor x = op.x.rows(begin, rows);
      const Tensor logits(scratch.raw(), {rows, vocab}, op.x.dtype(), gpu::head_logits_stride(op));
      products |= gemm(device_, {.c = logits, .a = x, .b = op.w, .trans_b = true});
      launch(HeadLoss::name, cross_entropy<T>, blocks(rows),
             row_threads(ceil_div(vocab, kPiece<T> * kPieces), kThreads<T>), 0, device_.stream(), logits.data<T>(),
             logits.stride(), op.loss.data<accumulator_t<T>>() + begin, op.labels.data<int32_t>() + begin,
             op.grad_scale.data<double>(), op.z_coef, vocab, train, device_.fault());
      if (!train) continue;
      products |= gemm(device_, {.c = op.dx.rows(begin, rows), .a = logits, .b = op.w});
      products |= gemm(device_, {.c = op.dw, .a = logits, .b = x, .trans_a = true, .accumulate = true});
    }
  });
  return products;
}

}  // namespace sluice::cuda
