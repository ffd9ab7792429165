#include "device/cuda/cuda_backend.h"
#include "device/cuda/kernel.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = 256;  // warps, one for a (row, head)

// The (row, head) of this warp, as row * heads + head.
__device__ __forceinline__ int64_t pair_of_warp() {
  return (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
}

template <class T>
__global__ void __launch_bounds__(kThreads) attention_sink(T* o, int64_t o_stride, accumulator_t<T>* lse,
                                                           const T* sinks, int64_t pairs, int64_t heads, int64_t dim) {
  using A = accumulator_t<T>;
  const int64_t pair = pair_of_warp();
  if (pair >= pairs) return;
  const int64_t head = pair % heads;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const A before = lse[pair], sink = load(sinks[head]), most = before > sink ? before : sink;
  const A after = most + log(exp(before - most) + exp(sink - most)), factor = exp(before - after);
  T* row = o + pair / heads * o_stride + head * dim;
  for (int64_t i = lane; i < dim; i += kWarp) row[i] = store<T>(load(row[i]) * factor);
  __syncwarp();  // all lanes have read lse
  if (lane == 0) lse[pair] = after;
}

// parts[row, head] = -exp(sink - lse) <do, o>
template <class T>
__global__ void __launch_bounds__(kThreads)
    sink_gradient_parts(accumulator_t<T>* parts, const T* d_o, int64_t d_o_stride, const T* o, int64_t o_stride,
                        const accumulator_t<T>* lse, const T* sinks, int64_t pairs, int64_t heads, int64_t dim) {
  using A = accumulator_t<T>;
  const int64_t pair = pair_of_warp();
  if (pair >= pairs) return;
  const int64_t row = pair / heads, head = pair % heads;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  A inner = 0;
  for (int64_t i = lane; i < dim; i += kWarp) {
    inner += load(d_o[row * d_o_stride + head * dim + i]) * load(o[row * o_stride + head * dim + i]);
  }
  inner = warp_sum(inner);
  if (lane == 0) parts[pair] = -exp(load(sinks[head]) - lse[pair]) * inner;
}

// A block sums the parts of a head.
template <class A>
__global__ void __launch_bounds__(kThreads) sum_sink_parts(A* dsinks, const A* parts, int64_t rows, int64_t heads) {
  const int64_t head = blockIdx.x;
  A sum = 0;
  for (int64_t row = threadIdx.x; row < rows; row += blockDim.x) sum += parts[row * heads + head];
  sum = block_sum(sum);
  if (threadIdx.x == 0) dsinks[head] += sum;
}

dim3 warp_per(int64_t pairs) {
  return blocks(ceil_div(pairs * kWarp, kThreads));
}

}  // namespace

KernelSet CudaBackend::execute(const AttentionSink& op, const Tensor& /*scratch*/) {
  dispatch_float(op.o.dtype(), [&]<class T>(T) {
    const int64_t heads = op.o.dim(1), pairs = op.o.dim(0) * heads;
    launch(AttentionSink::name, attention_sink<T>, warp_per(pairs), kThreads, 0, device_.stream(), op.o.data<T>(),
           op.o.stride(), op.lse.data<accumulator_t<T>>(), op.sinks.data<T>(), pairs, heads, op.o.dim(2));
  });
  return Kernel::own_cuda;
}

KernelSet CudaBackend::execute(const AttentionSinkBackward& op, const Tensor& scratch) {
  dispatch_float(op.o.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    const int64_t rows = op.o.dim(0), heads = op.o.dim(1);
    A* parts = static_cast<A*>(scratch.raw());
    launch(AttentionSinkBackward::name, sink_gradient_parts<T>, warp_per(rows * heads), kThreads, 0, device_.stream(),
           parts, op.d_o.data<T>(), op.d_o.stride(), op.o.data<T>(), op.o.stride(), op.lse.data<A>(),
           op.sinks.data<T>(), rows * heads, heads, op.o.dim(2));
    launch(AttentionSinkBackward::name, sum_sink_parts<A>, blocks(heads), row_threads(rows, kThreads), 0,
           device_.stream(), op.dsinks.data<A>(), parts, rows, heads);
  });
  return Kernel::own_cuda;
}

}  // namespace sluice::cuda
