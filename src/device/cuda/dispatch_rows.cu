// Rows by index: copied (GatherRows) or added (SumRows).
#include "device/cuda/cuda_backend.h"
#include "device/cuda/kernel.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = 256;  // at most

// Threads of a row: enough that each has a few pieces of a long one, a power of two.
int lanes_of_row(int64_t pieces) {
  constexpr int64_t kPiecesEach = 4;
  int lanes = 1;
  while (lanes < kThreads && lanes * kPiecesEach < pieces) lanes *= 2;
  return lanes;
}

// A thread copies this many pieces at a time; so many rows are read at a time for a sum.
constexpr int kCopied = 4;
constexpr int kAdded = 8;

// Sorted rows ask for the same tokens once per expert, in ascending order each time. Blocks take turns in `strips`
// parts of them, so that these walk through the tokens side by side and all but the first find a row in the cache.
template <class U>
__global__ void __launch_bounds__(kThreads)
    gather_rows(U* y, int64_t y_stride, const U* x, int64_t x_stride, const int32_t* index, int64_t num_rows,
                int64_t num_x_rows, int64_t width, int lanes, int strips, Fault* fault) {
  const int64_t block = int64_t{blockIdx.x} % strips * (gridDim.x / strips) + blockIdx.x / strips;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int64_t row = block * (blockDim.x / lanes) + threadIdx.x / lanes;
  if (row >= num_rows) return;
  const int64_t at = index[row];
  const bool zero = at < 0;
  const U* from = x + (zero ? 0 : checked(fault, FaultKind::row, at, num_x_rows)) * x_stride;
  U* to = y + row * y_stride;
  for (int64_t first = lane; first < width; first += int64_t{lanes} * kCopied) {
    U held[kCopied] = {};
    for (int i = 0; i < kCopied; ++i) {
      const int64_t col = first + i * lanes;
      if (col < width && !zero) held[i] = from[col];
    }
    for (int i = 0; i < kCopied; ++i) {
      const int64_t col = first + i * lanes;
      if (col < width) to[col] = held[i];
    }
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    sum_rows(T* y, int64_t y_stride, const T* x, int64_t x_stride, const int32_t* index, int64_t num_index,
             const T* add, int64_t add_stride, int64_t num_rows, int64_t num_x_rows, int64_t width, int lanes,
             Fault* fault) {
  using A = accumulator_t<T>;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int64_t row = int64_t{blockIdx.x} * (blockDim.x / lanes) + threadIdx.x / lanes;
  if (row >= num_rows) return;
  index += row * num_index;
  for (int64_t col = int64_t{lane} * N; col < width; col += int64_t{lanes} * N) {
    A sum[N] = {};
    for (int64_t first = 0; first < num_index; first += kAdded) {
      int64_t at[kAdded];
      for (int i = 0; i < kAdded; ++i) at[i] = first + i < num_index ? index[first + i] : -1;
      for (int i = 0; i < kAdded; ++i) {
        if (at[i] >= 0) at[i] = checked(fault, FaultKind::row, at[i], num_x_rows);
      }
      Piece<T, N> held[kAdded] = {};
      for (int i = 0; i < kAdded; ++i) {
        if (at[i] >= 0) held[i] = load_piece<T, N>(x + at[i] * x_stride + col);
      }
      // A sum that began with 0 is never -0: adding 0 for an entry that is not there changes no bit.
      for (int i = 0; i < kAdded; ++i) {
        for (int j = 0; j < N; ++j) sum[j] += load(held[i].at[j]);
      }
    }
    if (add != nullptr) {
      const auto last = load_piece<T, N>(add + row * add_stride + col);
      for (int j = 0; j < N; ++j) sum[j] += load(last.at[j]);
    }
    Piece<T, N> out;
    for (int j = 0; j < N; ++j) out.at[j] = store<T>(sum[j]);
    store_piece(y + row * y_stride + col, out);
  }
}

// Blocks of whole rows.
struct RowsPerBlock {
  int lanes, threads;
  int64_t num_blocks;

  RowsPerBlock(int64_t num_rows, int64_t pieces) : lanes(lanes_of_row(pieces)) {
    threads = row_threads(num_rows * lanes, kThreads);
    num_blocks = ceil_div(num_rows, threads / lanes);
  }
};

// Calls f(U{}) with the largest type up to 16 bytes that rows of both matrices are made of.
template <class F>
void dispatch_unit(const Tensor& x, const Tensor& y, F&& f) {
  const auto size = static_cast<uintptr_t>(size_of(x.dtype()));
  const auto bytes = [&](int64_t elements) { return static_cast<uintptr_t>(elements) * size; };
  const uintptr_t all = reinterpret_cast<uintptr_t>(x.raw()) | reinterpret_cast<uintptr_t>(y.raw()) |
                        bytes(x.stride()) | bytes(y.stride()) | bytes(x.dim(1));
  if (all % 16 == 0) {
    f(Piece<uint32_t, 4>{});
  } else if (all % 8 == 0) {
    f(uint64_t{});
  } else if (all % 4 == 0) {
    f(uint32_t{});
  } else if (all % 2 == 0) {
    f(uint16_t{});
  } else {
    f(uint8_t{});
  }
}

}  // namespace

void CudaBackend::execute(const GatherRows& op, const Tensor& /*scratch*/) {
  if (op.y.numel() == 0) return;
  dispatch_unit(op.x, op.y, [&]<class U>(U) {
    const auto size = static_cast<int64_t>(size_of(op.x.dtype()));
    const auto units = [&](int64_t elements) { return elements * size / static_cast<int64_t>(sizeof(U)); };
    const RowsPerBlock shape(op.y.dim(0), units(op.y.dim(1)));
    // Experts are many or a power of two, so that a strip is whole experts, or a half or quarter of one.
    constexpr int kStrips = 32;
    const int strips = shape.num_blocks >= int64_t{8} * kStrips ? kStrips : 1;
    launch(GatherRows::name, gather_rows<U>, blocks(ceil_div(shape.num_blocks, strips) * strips), shape.threads, 0,
           device_.stream(), static_cast<U*>(op.y.raw()), units(op.y.stride()), static_cast<const U*>(op.x.raw()),
           units(op.x.stride()), op.index.data<int32_t>(), op.y.dim(0), op.x.dim(0), units(op.y.dim(1)), shape.lanes,
           strips, device_.fault());
  });
}

void CudaBackend::execute(const SumRows& op, const Tensor& /*scratch*/) {
  if (op.y.numel() == 0) return;
  dispatch_float(op.y.dtype(), [&]<class T>(T) {
    with_pieces<T>(in_pieces(op.y) && in_pieces(op.x) && in_pieces(op.add), [&](auto n) {
      constexpr int N = decltype(n)::value;
      const RowsPerBlock shape(op.y.dim(0), op.y.dim(1) / N);
      launch(SumRows::name, sum_rows<T, N>, blocks(shape.num_blocks), shape.threads, 0, device_.stream(),
             op.y.data<T>(), op.y.stride(), op.x.data<T>(), op.x.stride(), op.index.data<int32_t>(), op.index.dim(1),
             op.add ? op.add.data<T>() : nullptr, op.add.stride(), op.y.dim(0), op.x.dim(0), op.y.dim(1), shape.lanes,
             device_.fault());
    });
  });
}

}  // namespace sluice::cuda
