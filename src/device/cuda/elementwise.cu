#include "base/philox.h"
#include "device/cuda/cuda_backend.h"
#include "device/cuda/kernel.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = 256;

// A tensor as rows of `inner` elements; a dense one is a single row.
struct Rows {
  int64_t count, inner;
};
Rows rows_of(const Tensor& a, const Tensor& b) {
  if (a.rank() == 0 || a.numel() == 0) return {0, 0};
  if (a.dense() && b.dense()) return {1, a.numel()};
  return {a.dim(0), a.shape().inner()};
}

// Calls f(row, first element) for every N elements, grid-stride.
template <int N, class F>
__device__ __forceinline__ void for_each_piece(Rows rows, F&& f) {
  const int64_t per_row = rows.inner / N, items = rows.count * per_row;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < items; i += int64_t{gridDim.x} * kThreads) {
    f(i / per_row, i % per_row * N);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) fill(T* x, int64_t stride, Rows rows, T value) {
  for_each_piece<1>(rows, [&](int64_t row, int64_t i) { x[row * stride + i] = value; });
}

template <class T>
__global__ void __launch_bounds__(kThreads) fill_normal(T* x, int64_t count, double std, Philox random, int64_t first) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += int64_t{gridDim.x} * kThreads) {
    x[i] = static_cast<T>(std * random.normal(static_cast<uint64_t>(first + i)));
  }
}

// N elements of both types at once.
template <class Y, class X, int N>
__global__ void __launch_bounds__(kThreads) convert(Y* y, int64_t y_stride, const X* x, int64_t x_stride, Rows rows) {
  for_each_piece<N>(rows, [&](int64_t row, int64_t i) {
    const auto in = load_piece<X, N>(x + row * x_stride + i);
    Piece<Y, N> out;
    for (int j = 0; j < N; ++j) {
      out.at[j] = store<Y>(static_cast<accumulator_t<Y>>(load(in.at[j])));
    }
    store_piece(y + row * y_stride + i, out);
  });
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) add(T* y, int64_t y_stride, const T* x, int64_t x_stride, Rows rows) {
  for_each_piece<N>(rows, [&](int64_t row, int64_t i) {
    const auto a = load_piece<T, N>(y + row * y_stride + i), b = load_piece<T, N>(x + row * x_stride + i);
    Piece<T, N> out;
    for (int j = 0; j < N; ++j) out.at[j] = store<T>(load(a.at[j]) + load(b.at[j]));
    store_piece(y + row * y_stride + i, out);
  });
}

// parts[block] = the sum of kPart elements, in f64.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) sum_parts(double* parts, const T* x, int64_t count, bool squares) {
  const int64_t begin = int64_t{blockIdx.x} * Sum::kPart;
  const int64_t end = begin + Sum::kPart < count ? begin + Sum::kPart : count;
  double sum = 0;
  for (int64_t i = begin + int64_t{threadIdx.x} * N; i < end; i += int64_t{blockDim.x} * N) {
    const auto in = load_piece<T, N>(x + i);
    for (int j = 0; j < N; ++j) {
      const auto value = static_cast<double>(load(in.at[j]));
      sum += squares ? value * value : value;
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) add_parts(double* sum, const double* parts, int64_t count) {
  double total = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) total += parts[i];
  total = block_sum(total);
  if (threadIdx.x == 0) sum[0] += total;
}

// Elements in a piece of the larger of two types.
template <class Y, class X>
constexpr int kPieceOfBoth = kPiece<X> < kPiece<Y> ? kPiece<X> : kPiece<Y>;

}  // namespace

void CudaBackend::execute(const Fill& op, const Tensor& /*scratch*/) {
  const Rows rows = rows_of(op.x, op.x);
  if (rows.count == 1 && op.value == 0) {
    check(cudaMemsetAsync(op.x.raw(), 0, op.x.bytes(), device_.stream()), "fill");
    return;
  }
  const auto run = [&]<class T>(T value) {
    launch(Fill::name, fill<T>, blocks_for(rows.count * rows.inner, kThreads, device_.num_sms()), kThreads, 0,
           device_.stream(), static_cast<T*>(op.x.raw()), op.x.stride(), rows, value);
  };
  if (op.x.dtype() == DType::i32) {
    run(static_cast<int32_t>(op.value));
  } else {
    dispatch_float(op.x.dtype(), [&]<class T>(T) { run(static_cast<T>(op.value)); });
  }
}

void CudaBackend::execute(const FillNormal& op, const Tensor& /*scratch*/) {
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    const int64_t count = op.x.numel();
    launch(FillNormal::name, fill_normal<T>, blocks_for(count, kThreads, device_.num_sms()), kThreads, 0,
           device_.stream(), op.x.data<T>(), count, op.std, Philox(op.key), op.first);
  });
}

void CudaBackend::execute(const Copy& op, const Tensor& /*scratch*/) {
  const Rows rows = rows_of(op.x, op.y);
  if (rows.count == 0) return;
  if (op.x.dtype() == op.y.dtype()) {
    const size_t size = size_of(op.x.dtype());
    // In one piece if it is: rows may not be longer than 2 GiB.
    if (rows.count == 1) {
      check(cudaMemcpyAsync(op.y.raw(), op.x.raw(), static_cast<size_t>(rows.inner) * size, cudaMemcpyDeviceToDevice,
                            device_.stream()),
            "copy");
      return;
    }
    const auto pitch = [&](const Tensor& t) { return static_cast<size_t>(t.stride()) * size; };
    check(cudaMemcpy2DAsync(op.y.raw(), pitch(op.y), op.x.raw(), pitch(op.x), static_cast<size_t>(rows.inner) * size,
                            static_cast<size_t>(rows.count), cudaMemcpyDeviceToDevice, device_.stream()),
          "copy");
    return;
  }
  dispatch_float(op.x.dtype(), [&]<class X>(X) {
    dispatch_float(op.y.dtype(), [&]<class Y>(Y) {
      constexpr int N = kPieceOfBoth<Y, X>;
      const auto run = [&](auto n) {
        launch(Copy::name, convert<Y, X, decltype(n)::value>,
               blocks_for(rows.count * rows.inner / decltype(n)::value, kThreads, device_.num_sms()), kThreads, 0,
               device_.stream(), op.y.data<Y>(), op.y.stride(), op.x.data<X>(), op.x.stride(), rows);
      };
      if (in_pieces(op.x) && in_pieces(op.y) && rows.inner % N == 0) {
        run(std::integral_constant<int, N>{});
      } else {
        run(std::integral_constant<int, 1>{});
      }
    });
  });
}

void CudaBackend::execute(const Add& op, const Tensor& /*scratch*/) {
  const Rows rows = rows_of(op.x, op.y);
  dispatch_float(op.y.dtype(), [&]<class T>(T) {
    with_pieces<T>(in_pieces(op.x) && in_pieces(op.y), [&](auto n) {
      constexpr int N = decltype(n)::value;
      launch(Add::name, add<T, N>, blocks_for(rows.count * rows.inner / N, kThreads, device_.num_sms()), kThreads, 0,
             device_.stream(), op.y.data<T>(), op.y.stride(), op.x.data<T>(), op.x.stride(), rows);
    });
  });
}

void CudaBackend::execute(const Sum& op, const Tensor& scratch) {
  const int64_t count = op.x.numel(), parts = ceil_div(count, Sum::kPart);
  if (count == 0) return;
  auto* sums = static_cast<double*>(scratch.raw());
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    const bool pieces = reinterpret_cast<uintptr_t>(op.x.raw()) % 16 == 0 && count % kPiece<T> == 0;
    with_pieces<T>(pieces, [&](auto n) {
      constexpr int N = decltype(n)::value;
      launch(Sum::name, sum_parts<T, N>, blocks(parts), row_threads(count / N, kThreads), 0, device_.stream(), sums,
             op.x.data<T>(), count, op.squares);
    });
  });
  launch(Sum::name, add_parts, blocks(1), row_threads(parts, kThreads), 0, device_.stream(), op.sum.data<double>(),
         sums, parts);
}

}  // namespace sluice::cuda
