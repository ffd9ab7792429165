#include "device/cuda/cuda_backend.h"
#include "device/cuda/kernel.h"
#include "device/cuda/scratch.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = 256;  // at most

// The normed vectors of a tensor: rows of [T, D], or heads of [T, n, D].
template <class T>
struct Vectors {
  T* data;
  int64_t stride;
  int64_t heads;
  int64_t dim;
  __device__ __forceinline__ T* at(int64_t row) const { return data + row / heads * stride + row % heads * dim; }
};
template <class T>
Vectors<T> vectors(const Tensor& t) {
  if (!t.defined()) return {nullptr, 0, 1, 0};
  return {static_cast<T*>(t.raw()), t.stride(), t.rank() == 3 ? t.dim(1) : 1, t.dim(t.rank() - 1)};
}
int64_t num_vectors(const Tensor& t) {
  return t.rank() == 3 ? t.dim(0) * t.dim(1) : t.dim(0);
}

// Who makes a vector: a whole block, or a warp where it is short. The second reading of a row comes from the cache.
template <bool kBlock>
struct Team {
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % (kBlock ? kThreads : kWarp); }
  static __device__ __forceinline__ int lanes() { return kBlock ? static_cast<int>(blockDim.x) : kWarp; }
  // Which team of the block this is, and of how many.
  static __device__ __forceinline__ int index() { return kBlock ? 0 : static_cast<int>(threadIdx.x) / kWarp; }
  static __device__ __forceinline__ int count() { return kBlock ? 1 : static_cast<int>(blockDim.x) / kWarp; }
  template <class A>
  static __device__ __forceinline__ A sum(A x) {
    return kBlock ? block_sum(x) : warp_sum(x);
  }
};

template <class T, int N, bool kBlock>
__device__ __forceinline__ void write_norm(T* y, accumulator_t<T>* rstd, const T* x, const T* gamma, int64_t dim,
                                           accumulator_t<T> squares, accumulator_t<T> eps) {
  using A = accumulator_t<T>;
  const A scale = 1 / sqrt(Team<kBlock>::sum(squares) / static_cast<A>(dim) + eps);
  for (int64_t d = int64_t{Team<kBlock>::lane()} * N; d < dim; d += int64_t{Team<kBlock>::lanes()} * N) {
    const auto in = load_piece<T, N>(x + d), g = load_piece<T, N>(gamma + d);
    Piece<T, N> out;
    for (int i = 0; i < N; ++i) out.at[i] = store<T>(load(in.at[i]) * scale * load(g.at[i]));
    store_piece(y + d, out);
  }
  if (Team<kBlock>::lane() == 0) *rstd = scale;
}

template <class T, int N, bool kBlock>
__global__ void __launch_bounds__(kThreads) rmsnorm_forward(Vectors<T> y, accumulator_t<T>* rstd, Vectors<const T> x,
                                                            const T* gamma, int64_t rows, accumulator_t<T> eps) {
  const int64_t row = int64_t{blockIdx.x} * Team<kBlock>::count() + Team<kBlock>::index();
  if (row >= rows) return;
  accumulator_t<T> squares = 0;
  for (int64_t d = int64_t{Team<kBlock>::lane()} * N; d < x.dim; d += int64_t{Team<kBlock>::lanes()} * N) {
    const auto in = load_piece<T, N>(x.at(row) + d);
    for (int i = 0; i < N; ++i) squares += load(in.at[i]) * load(in.at[i]);
  }
  write_norm<T, N, kBlock>(y.at(row), rstd + row, x.at(row), gamma, x.dim, squares, eps);
}

// The norm is of the rounded sum: what backward will read. A thread reads again what it wrote itself.
template <class T, int N, bool kBlock>
__global__ void __launch_bounds__(kThreads, 1)
    residual_rmsnorm_forward(Vectors<T> sum, Vectors<T> y, accumulator_t<T>* rstd, Vectors<const T> x,
                             Vectors<const T> add, const T* gamma, int64_t rows, accumulator_t<T> eps) {
  const int64_t row = int64_t{blockIdx.x} * Team<kBlock>::count() + Team<kBlock>::index();
  if (row >= rows) return;
  accumulator_t<T> squares = 0;
  for (int64_t d = int64_t{Team<kBlock>::lane()} * N; d < x.dim; d += int64_t{Team<kBlock>::lanes()} * N) {
    const auto a = load_piece<T, N>(x.at(row) + d), b = load_piece<T, N>(add.at(row) + d);
    Piece<T, N> out;
    for (int i = 0; i < N; ++i) {
      out.at[i] = store<T>(load(a.at[i]) + load(b.at[i]));
      squares += load(out.at[i]) * load(out.at[i]);
    }
    store_piece(sum.at(row) + d, out);
  }
  write_norm<T, N, kBlock>(y.at(row), rstd + row, sum.at(row), gamma, x.dim, squares, eps);
}

// A block makes a range of rows and the sum of their parts of dgamma: one array per team in shared memory, in which
// every thread has columns of its own, added up at the end.
template <class T, int N, bool kBlock>
__global__ void __launch_bounds__(kThreads, 1)
    rmsnorm_backward(Vectors<T> dx, accumulator_t<T>* parts, Vectors<const T> dy, Vectors<const T> x,
                     const accumulator_t<T>* rstd, const T* gamma, Vectors<const T> residual, int64_t rows,
                     int64_t rows_per_part) {
  using A = accumulator_t<T>;
  using Team = Team<kBlock>;
  const int64_t dim = x.dim, first = int64_t{blockIdx.x} * rows_per_part;
  const int64_t last = first + rows_per_part < rows ? first + rows_per_part : rows;
  const int64_t begin = int64_t{Team::lane()} * N, step = int64_t{Team::lanes()} * N;
  A* dgamma = dynamic_shared<A>() + Team::index() * dim;
  for (int64_t d = begin; d < dim; d += step) {
    for (int i = 0; i < N; ++i) dgamma[d + i] = 0;
  }
  for (int64_t row = first + Team::index(); row < last; row += Team::count()) {
    const A scale = rstd[row];
    A mean = 0;  // of g xhat, with g = dy gamma and xhat = x rstd
    for (int64_t d = begin; d < dim; d += step) {
      const auto in = load_piece<T, N>(x.at(row) + d), up = load_piece<T, N>(dy.at(row) + d);
      const auto g = load_piece<T, N>(gamma + d);
      for (int i = 0; i < N; ++i) {
        const A product = load(up.at[i]) * load(in.at[i]) * scale;
        mean += product * load(g.at[i]);
        dgamma[d + i] += product;
      }
    }
    mean = Team::sum(mean) / static_cast<A>(dim);
    for (int64_t d = begin; d < dim; d += step) {
      const auto in = load_piece<T, N>(x.at(row) + d), up = load_piece<T, N>(dy.at(row) + d);
      const auto g = load_piece<T, N>(gamma + d);
      Piece<T, N> out;
      if (residual.data != nullptr) {
        out = load_piece<T, N>(residual.at(row) + d);
      } else {
        for (int i = 0; i < N; ++i) out.at[i] = store<T>(0);
      }
      for (int i = 0; i < N; ++i) {
        const A own = scale * (load(up.at[i]) * load(g.at[i]) - load(in.at[i]) * scale * mean);
        out.at[i] = store<T>(load(out.at[i]) + own);
      }
      store_piece(dx.at(row) + d, out);
    }
  }
  __syncthreads();
  const A* all = dynamic_shared<A>();
  for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) {
    A sum = all[d];
    for (int team = 1; team < Team::count(); ++team) sum += all[team * dim + d];
    parts[blockIdx.x * dim + d] = sum;
  }
}

// A block adds up kColumns columns: kLanes lanes of parts, then those in order.
constexpr int kColumns = 32;
constexpr int kLanes = 8;
template <class A>
__global__ void __launch_bounds__(kColumns* kLanes) sum_parts(A* dgamma, const A* parts, int64_t count, int64_t dim) {
  __shared__ A lanes[kLanes][kColumns];
  const int column = static_cast<int>(threadIdx.x) % kColumns, lane = static_cast<int>(threadIdx.x) / kColumns;
  const int64_t d = int64_t{blockIdx.x} * kColumns + column;
  A sum = 0;
  for (int64_t part = lane; d < dim && part < count; part += kLanes) sum += parts[part * dim + d];
  lanes[lane][column] = sum;
  __syncthreads();
  if (lane != 0 || d >= dim) return;
  for (int i = 1; i < kLanes; ++i) sum += lanes[i][column];
  dgamma[d] += sum;
}

// A warp a vector up to this many pieces; longer ones get a block.
constexpr int64_t kMostWarpPieces = 4 * kWarp;

struct Shape {
  bool block;
  int threads;
  int64_t teams;  // vectors at a time in a block

  Shape(int64_t rows, int64_t pieces)
      : block(pieces > kMostWarpPieces),
        threads(block ? row_threads(pieces, kThreads) : row_threads(rows * kWarp, kThreads)),
        teams(block ? 1 : threads / kWarp) {}
};

// Calls f(N, kBlock) as integral constants.
template <class T, class F>
void with_shape(const Shape& shape, bool pieces, F&& f) {
  with_pieces<T>(pieces, [&](auto n) { shape.block ? f(n, std::true_type{}) : f(n, std::false_type{}); });
}

template <class T>
Shape shape_of(const Tensor& x, bool pieces) {
  return {num_vectors(x), ceil_div(x.dim(x.rank() - 1), pieces ? kPiece<T> : 1)};
}

}  // namespace

KernelSet CudaBackend::execute(const RmsNormForward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    const bool pieces = in_pieces(op.x) && in_pieces(op.y) && in_pieces(op.gamma);
    const Shape shape = shape_of<T>(op.x, pieces);
    const int64_t rows = num_vectors(op.x);
    with_shape<T>(shape, pieces, [&](auto n, auto block) {
      launch(RmsNormForward::name, rmsnorm_forward<T, decltype(n)::value, decltype(block)::value>,
             blocks(ceil_div(rows, shape.teams)), shape.threads, 0, device_.stream(), vectors<T>(op.y),
             op.rstd.data<A>(), vectors<const T>(op.x), op.gamma.data<T>(), rows, op.eps);
    });
  });
  return Kernel::own_cuda;
}

KernelSet CudaBackend::execute(const ResidualRmsNormForward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    const bool pieces =
        in_pieces(op.x) && in_pieces(op.add) && in_pieces(op.sum) && in_pieces(op.y) && in_pieces(op.gamma);
    const Shape shape = shape_of<T>(op.x, pieces);
    const int64_t rows = op.x.dim(0);
    with_shape<T>(shape, pieces, [&](auto n, auto block) {
      launch(ResidualRmsNormForward::name, residual_rmsnorm_forward<T, decltype(n)::value, decltype(block)::value>,
             blocks(ceil_div(rows, shape.teams)), shape.threads, 0, device_.stream(), vectors<T>(op.sum),
             vectors<T>(op.y), op.rstd.data<A>(), vectors<const T>(op.x), vectors<const T>(op.add), op.gamma.data<T>(),
             rows, op.eps);
    });
  });
  return Kernel::own_cuda;
}

KernelSet CudaBackend::execute(const RmsNormBackward& op, const Tensor& scratch) {
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    const bool pieces =
        in_pieces(op.x) && in_pieces(op.dy) && in_pieces(op.dx) && in_pieces(op.gamma) && in_pieces(op.residual);
    const Shape shape = shape_of<T>(op.x, pieces);
    const int64_t rows = num_vectors(op.x), dim = op.gamma.dim(0);
    if (rows == 0) return;
    const int64_t parts = gpu::norm_parts(op), rows_per_part = ceil_div(rows, parts);
    A* sums = static_cast<A*>(scratch.raw());
    with_shape<T>(shape, pieces, [&](auto n, auto block) {
      launch(RmsNormBackward::name, rmsnorm_backward<T, decltype(n)::value, decltype(block)::value>, blocks(parts),
             shape.threads, static_cast<size_t>(shape.teams * dim) * sizeof(A), device_.stream(), vectors<T>(op.dx),
             sums, vectors<const T>(op.dy), vectors<const T>(op.x), op.rstd.data<A>(), op.gamma.data<T>(),
             vectors<const T>(op.residual), rows, rows_per_part);
    });
    launch(RmsNormBackward::name, sum_parts<A>, blocks(ceil_div(dim, kColumns)), kColumns * kLanes, 0, device_.stream(),
           op.dgamma.data<A>(), sums, parts, dim);
  });
  return Kernel::own_cuda;
}

}  // namespace sluice::cuda
