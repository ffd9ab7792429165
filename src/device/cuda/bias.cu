#include "device/cuda/cuda_backend.h"
#include "device/cuda/kernel.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = 256;  // at most
// A block of the bias gradient: so many columns by so many rows at a time.
constexpr int kColumns = 32;
constexpr int kRows = 8;

// Rows of expert e, cut to what there is if the offsets are bad.
struct Segment {
  int64_t begin, end;
};
__device__ __forceinline__ Segment segment(const int32_t* offsets, int64_t e, int64_t rows, Fault* fault) {
  if (offsets == nullptr) return {0, rows};
  const int64_t begin = offsets[e], end = offsets[e + 1];
  if (begin < 0 || end < begin || end > rows) {
    report(fault, FaultKind::offset, begin < 0 ? begin : end, rows);
    return {0, 0};
  }
  return {begin, end};
}

// The blocks of an expert (blockIdx.y) take its rows in turn, a block one row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    add_bias(T* y, int64_t stride, const T* b, const int32_t* offsets, const accumulator_t<T>* weight, int64_t rows,
             int64_t width, Fault* fault) {
  using A = accumulator_t<T>;
  const int64_t e = blockIdx.y;
  const Segment s = segment(offsets, e, rows, fault);
  for (int64_t row = s.begin + blockIdx.x; row < s.end; row += gridDim.x) {
    const A w = weight != nullptr ? weight[row] : A{1};
    for (int64_t n = threadIdx.x; n < width; n += blockDim.x) {
      T& to = y[row * stride + n];
      to = store<T>(load(to) + w * load(b[e * width + n]));
    }
  }
}

// A block sums kColumns columns of an expert: kRows lanes of rows, added in order at the end.
template <class T>
__global__ void __launch_bounds__(kColumns* kRows)
    bias_gradient(accumulator_t<T>* db, const T* dy, int64_t stride, const int32_t* offsets,
                  const accumulator_t<T>* weight, int64_t rows, int64_t width, Fault* fault) {
  using A = accumulator_t<T>;
  __shared__ A parts[kRows][kColumns];
  const int64_t e = blockIdx.y;
  const Segment s = segment(offsets, e, rows, fault);
  const int column = static_cast<int>(threadIdx.x) % kColumns, lane = static_cast<int>(threadIdx.x) / kColumns;
  const int64_t n = int64_t{blockIdx.x} * kColumns + column;
  A sum = 0;
  for (int64_t row = s.begin + lane; n < width && row < s.end; row += kRows) {
    sum += (weight != nullptr ? weight[row] : A{1}) * load(dy[row * stride + n]);
  }
  parts[lane][column] = sum;
  __syncthreads();
  if (lane != 0 || n >= width) return;
  for (int i = 1; i < kRows; ++i) sum += parts[i][column];
  db[e * width + n] += sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    bias_weight_gradient(accumulator_t<T>* dweight, const T* dy, int64_t stride, const T* b, const int32_t* offsets,
                         int64_t rows, int64_t width, Fault* fault) {
  using A = accumulator_t<T>;
  const int64_t e = blockIdx.y;
  const Segment s = segment(offsets, e, rows, fault);
  for (int64_t row = s.begin + blockIdx.x; row < s.end; row += gridDim.x) {
    A sum = 0;
    for (int64_t n = threadIdx.x; n < width; n += blockDim.x)
      sum += load(dy[row * stride + n]) * load(b[e * width + n]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) dweight[row] += sum;
  }
}

template <class T>
T* optional(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

// Blocks for the rows of each expert: as many as have work if all rows were one expert's, within reason.
dim3 row_grid(int64_t rows, int64_t experts, int num_sms) {
  const int64_t most = ceil_div(int64_t{num_sms} * 16, experts);
  return dim3(static_cast<unsigned>(rows < most ? rows : most), static_cast<unsigned>(experts));
}

}  // namespace

void CudaBackend::execute(const AddBias& op, const Tensor& /*scratch*/) {
  dispatch_float(op.y.dtype(), [&]<class T>(T) {
    const int64_t rows = op.y.dim(0), width = op.y.dim(1);
    launch(AddBias::name, add_bias<T>, row_grid(rows, op.b.dim(0), device_.num_sms()), row_threads(width, kThreads), 0,
           device_.stream(), op.y.data<T>(), op.y.stride(), op.b.data<T>(), optional<int32_t>(op.offsets),
           optional<accumulator_t<T>>(op.weight), rows, width, device_.fault());
  });
}

void CudaBackend::execute(const BiasBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.dy.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    const int64_t rows = op.dy.dim(0), width = op.dy.dim(1), experts = op.db.dim(0);
    const auto* offsets = optional<int32_t>(op.offsets);
    if (rows == 0) return;
    launch(BiasBackward::name, bias_gradient<T>,
           dim3(static_cast<unsigned>(ceil_div(width, kColumns)), static_cast<unsigned>(experts)), kColumns * kRows, 0,
           device_.stream(), op.db.data<A>(), op.dy.data<T>(), op.dy.stride(), offsets, optional<A>(op.weight), rows,
           width, device_.fault());
    if (!op.dweight) return;
    launch(BiasBackward::name, bias_weight_gradient<T>, row_grid(rows, experts, device_.num_sms()),
           row_threads(width, kThreads), 0, device_.stream(), op.dweight.data<A>(), op.dy.data<T>(), op.dy.stride(),
           op.b.data<T>(), offsets, rows, width, device_.fault());
  });
}

}  // namespace sluice::cuda
