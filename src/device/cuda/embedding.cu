#include "device/cuda/cuda_backend.h"
#include "device/cuda/kernel.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = 256;  // at most

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    embedding_forward(T* y, int64_t y_stride, const T* w, int64_t w_stride, const int32_t* tokens, int64_t vocab,
                      int64_t dim, Fault* fault) {
  const int64_t t = blockIdx.x;
  const T* from = w + checked(fault, FaultKind::token, tokens[t], vocab) * w_stride;
  for (int64_t d = int64_t{threadIdx.x} * N; d < dim; d += int64_t{blockDim.x} * N) {
    store_piece(y + t * y_stride + d, load_piece<T, N>(from + d));
  }
}

// The block of a token's first occurrence adds up all its occurrences, in order; the others have nothing to do. Who is
// first, and where the next is, the whole block looks for together.
template <class T>
__global__ void __launch_bounds__(kThreads)
    embedding_backward(accumulator_t<T>* dw, int64_t dw_stride, const T* dy, int64_t dy_stride, const int32_t* tokens,
                       int64_t num_tokens, int64_t vocab, int64_t dim, Fault* fault) {
  using A = accumulator_t<T>;
  const int64_t t = blockIdx.x;
  const int32_t token = tokens[t];
  if (token < 0 || token >= vocab) {
    if (threadIdx.x == 0) report(fault, FaultKind::token, token, vocab);
    return;
  }
  int earlier = 0;
  for (int64_t i = threadIdx.x; i < t; i += blockDim.x) earlier = tokens[i] == token ? 1 : earlier;
  if (block_max(earlier) > 0) return;

  A* to = dw + token * dw_stride;
  int64_t at = t;
  while (at < num_tokens) {
    for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) to[d] += load(dy[at * dy_stride + d]);
    // The next occurrence: the lowest of the window's, window by window.
    int64_t next = num_tokens;
    for (int64_t window = at + 1; window < num_tokens && next == num_tokens; window += blockDim.x) {
      const int64_t i = window + threadIdx.x;
      const bool hit = i < num_tokens && tokens[i] == token;
      const int64_t highest = block_max(hit ? num_tokens - i : int64_t{0});
      next = num_tokens - highest;
    }
    at = next;
  }
}

}  // namespace

void CudaBackend::execute(const EmbeddingForward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.y.dtype(), [&]<class T>(T) {
    const int64_t dim = op.y.dim(1);
    with_pieces<T>(in_pieces(op.y) && in_pieces(op.w), [&](auto n) {
      constexpr int N = decltype(n)::value;
      launch(EmbeddingForward::name, embedding_forward<T, N>, blocks(op.y.dim(0)), row_threads(dim / N, kThreads), 0,
             device_.stream(), op.y.data<T>(), op.y.stride(), op.w.data<T>(), op.w.stride(), op.tokens.data<int32_t>(),
             op.w.dim(0), dim, device_.fault());
    });
  });
}

void CudaBackend::execute(const EmbeddingBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.dy.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    const int64_t num_tokens = op.dy.dim(0), dim = op.dy.dim(1);
    launch(EmbeddingBackward::name, embedding_backward<T>, blocks(num_tokens),
           row_threads(num_tokens > dim ? num_tokens : dim, kThreads), 0, device_.stream(), op.dw.data<A>(),
           op.dw.stride(), op.dy.data<T>(), op.dy.stride(), op.tokens.data<int32_t>(), num_tokens, op.dw.dim(0), dim,
           device_.fault());
  });
}

}  // namespace sluice::cuda
