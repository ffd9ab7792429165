#include <vector>

#include "base/log.h"
#include "device/cuda/cuda_backend.h"
#include "device/cuda/gemm.h"
#include "device/cuda/grouped_kernels.h"
#include "device/cuda/kernel.h"
#include "device/cuda/matmul.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kQuad = 4;  // neighbouring rows and columns of a thread, read from shared memory at once

// How a block makes a tile of c. Its threads stand in kSlices squares, each of which sums every kSlices-th step of the
// depth for the whole tile; a thread has Quads x Quads blocks of kQuad x kQuad elements. Depth is what shared memory
// holds at a time.
template <int Quads, int Slices, int Depth>
struct Tiling {
  static constexpr int kQuads = Quads, kSlices = Slices;
  static constexpr int kSide = Slices == 1 ? 16 : 8;
  static constexpr int kTile = kSide * kQuads * kQuad;
  static constexpr int kDepth = Depth;
  static_assert(kSide * kSide * kSlices == kThreads);
};
using WideTiling = Tiling<2, 1, 16>;    // 128 x 128
using SmallTiling = Tiling<1, 4, 32>;   // 32 x 32: for products that have too few wide tiles to go round
using DoubleTiling = Tiling<1, 4, 16>;  // for f64, twice as long in registers

// A matrix of the product as element (outer, depth) at data[outer * outer_step + depth * depth_step], outer < extent.
template <class T>
struct Operand {
  const T* data;
  int64_t outer_step, depth_step;
  int64_t extent;
};

// Brings tiles of an operand to shared memory by way of registers, so that they are on their way while the tile before
// is summed. What lies outside the matrix is 0. Neighbouring threads take elements that are neighbours in memory.
template <class T, class Tiles>
class Loader {
  using A = accumulator_t<T>;
  static constexpr int kEach = Tiles::kTile * Tiles::kDepth / kThreads;

 public:
  static constexpr int kStride = Tiles::kTile + kQuad;  // of a tile's rows, one for each step of the depth

  __device__ __forceinline__ Loader(const Operand<T>& operand, int64_t first) : data_(operand.data) {
    const bool along = operand.depth_step == 1;
    const int thread = static_cast<int>(threadIdx.x);
    const int outer = along ? thread / Tiles::kDepth : thread % Tiles::kTile;
    const int step = along ? thread % Tiles::kDepth : thread / Tiles::kTile;
    outer_jump_ = along ? kThreads / Tiles::kDepth : 0;
    step_jump_ = along ? 0 : kThreads / Tiles::kTile;
    jump_ = outer_jump_ * operand.outer_step + step_jump_ * operand.depth_step;
    advance_ = Tiles::kDepth * operand.depth_step;
    at_ = (first + outer) * operand.outer_step + step * operand.depth_step;
    const int64_t left = operand.extent - first;
    outer_left_ = static_cast<int>(left < Tiles::kTile ? left : Tiles::kTile) - outer;
    step_ = step;
    to_ = step * kStride + outer;
  }

  // The next tile, where so many steps of the depth are left.
  __device__ __forceinline__ void fetch(int64_t depth_left) {
    const int steps_left = static_cast<int>(depth_left < Tiles::kDepth ? depth_left : Tiles::kDepth) - step_;
    for (int j = 0; j < kEach; ++j) {
      const bool inside = j * outer_jump_ < outer_left_ && j * step_jump_ < steps_left;
      held_[j] = inside ? load(data_[at_ + j * jump_]) : A{0};
    }
    at_ += advance_;
  }
  __device__ __forceinline__ void put(A* tile) const {
    for (int j = 0; j < kEach; ++j) tile[to_ + j * (step_jump_ * kStride + outer_jump_)] = held_[j];
  }

 private:
  const T* data_;
  int64_t at_, jump_, advance_;
  int outer_jump_, step_jump_, outer_left_, step_, to_;
  A held_[kEach];
};

template <class TA, class TB, class TC, class Tiles>
__global__ void __launch_bounds__(kThreads)
    tiled_product(TC* c, int64_t c_stride, const TA* a, int64_t a_outer, int64_t a_depth, const TB* b, int64_t b_outer,
                  int64_t b_depth, int64_t m, int64_t n, int64_t k, bool accumulate) {
  using A = accumulator_t<TC>;
  constexpr int kQuads = Tiles::kQuads, kSide = Tiles::kSide, kSlices = Tiles::kSlices, kDepth = Tiles::kDepth;
  constexpr int kStride = Loader<TA, Tiles>::kStride, kEach = kQuads * kQuad;
  alignas(32) __shared__ A shared[2 * kDepth * kStride];
  A *const a_tile = shared, *const b_tile = shared + kDepth * kStride;

  const int64_t tiles_n = (n + Tiles::kTile - 1) / Tiles::kTile;
  const int64_t first_row = blockIdx.x / tiles_n * Tiles::kTile, first_col = blockIdx.x % tiles_n * Tiles::kTile;
  const int thread = static_cast<int>(threadIdx.x) % (kSide * kSide);
  const int slice = static_cast<int>(threadIdx.x) / (kSide * kSide);
  const int row = thread / kSide * kQuad, col = thread % kSide * kQuad;  // in the first block of each side

  Loader<TA, Tiles> a_loader({a, a_outer, a_depth, m}, first_row);
  Loader<TB, Tiles> b_loader({b, b_outer, b_depth, n}, first_col);
  A sum[kEach][kEach] = {};
  a_loader.fetch(k);
  b_loader.fetch(k);
  for (int64_t from = 0; from < k; from += kDepth) {
    __syncthreads();  // the tiles before have been read
    a_loader.put(a_tile);
    b_loader.put(b_tile);
    __syncthreads();
    a_loader.fetch(k - from - kDepth);
    b_loader.fetch(k - from - kDepth);
    for (int l = slice; l < kDepth; l += kSlices) {
      Piece<A, kQuad> rows[kQuads], cols[kQuads];
      for (int q = 0; q < kQuads; ++q) {
        rows[q] = load_piece<A, kQuad>(a_tile + l * kStride + q * kSide * kQuad + row);
        cols[q] = load_piece<A, kQuad>(b_tile + l * kStride + q * kSide * kQuad + col);
      }
      for (int i = 0; i < kEach; ++i) {
        for (int j = 0; j < kEach; ++j) sum[i][j] += rows[i / kQuad].at[i % kQuad] * cols[j / kQuad].at[j % kQuad];
      }
    }
  }

  // The slices' sums, added in their order.
  if constexpr (kSlices > 1) {
    static_assert(Tiles::kTile * Tiles::kTile <= 2 * kDepth * kStride && kQuads == 1);
    for (int s = 1; s < kSlices; ++s) {
      __syncthreads();
      if (slice == s) {
        for (int i = 0; i < kEach; ++i) {
          for (int j = 0; j < kEach; ++j) shared[(i * kEach + j) * kSide * kSide + thread] = sum[i][j];
        }
      }
      __syncthreads();
      if (slice == 0) {
        for (int i = 0; i < kEach; ++i) {
          for (int j = 0; j < kEach; ++j) sum[i][j] += shared[(i * kEach + j) * kSide * kSide + thread];
        }
      }
    }
    if (slice != 0) return;
  }
  for (int i = 0; i < kEach; ++i) {
    const int64_t at_row = first_row + i / kQuad * kSide * kQuad + row + i % kQuad;
    for (int j = 0; j < kEach; ++j) {
      const int64_t at_col = first_col + j / kQuad * kSide * kQuad + col + j % kQuad;
      if (at_row >= m || at_col >= n) continue;
      TC& to = c[at_row * c_stride + at_col];
      to = store<TC>(accumulate ? load(to) + sum[i][j] : sum[i][j]);
    }
  }
}

// Calls f(A{}, B{}, C{}) with the types of three dtypes that share an accumulator type.
template <class F>
void dispatch_product(const Gemm& op, F&& f) {
  const auto with_c = [&]<class A, class B>(A, B) {
    if constexpr (sizeof(A) == 8) {
      f(A{}, B{}, A{});
    } else {
      op.c.dtype() == DType::f32 ? f(A{}, B{}, float{}) : f(A{}, B{}, bf16{});
    }
  };
  if (op.c.dtype() == DType::f64) {
    with_c(double{}, double{});
  } else if (op.a.dtype() == DType::f32) {
    op.b.dtype() == DType::f32 ? with_c(float{}, float{}) : with_c(float{}, bf16{});
  } else {
    op.b.dtype() == DType::f32 ? with_c(bf16{}, float{}) : with_c(bf16{}, bf16{});
  }
}

}  // namespace

void plain_gemm(Device& device, const Gemm& op) {
  const int64_t m = op.m(), n = op.n(), k = op.k();
  const auto tiles = [&](int64_t side) { return ceil_div(m, side) * ceil_div(n, side); };
  dispatch_product(op, [&]<class TA, class TB, class TC>(TA, TB, TC) {
    const auto run = [&](auto tiling) {
      using Tiles = decltype(tiling);
      launch(Gemm::name, tiled_product<TA, TB, TC, Tiles>, blocks(tiles(Tiles::kTile)), kThreads, 0, device.stream(),
             op.c.data<TC>(), op.c.stride(), op.a.data<TA>(), op.trans_a ? 1 : op.a.stride(),
             op.trans_a ? op.a.stride() : 1, op.b.data<TB>(), op.trans_b ? op.b.stride() : 1,
             op.trans_b ? 1 : op.b.stride(), m, n, k, op.accumulate);
    };
    if constexpr (sizeof(TC) == 8) {
      run(DoubleTiling{});
    } else if (tiles(WideTiling::kTile) >= device.num_sms()) {
      run(WideTiling{});
    } else {
      run(SmallTiling{});
    }
  });
}

KernelSet gemm(Device& device, const Gemm& op) {
  if (op.c.numel() == 0) return {};
  if (device.matmul().run(op)) return Kernel::cublaslt;
  plain_gemm(device, op);
  return Kernel::own_cuda;
}

KernelSet CudaBackend::execute(const Gemm& op, const Tensor& /*scratch*/) {
  return gemm(device_, op);
}

// Without the grouped kernels: a product for each expert, of sizes the host has to read (docs/host_reads.md).

namespace {

std::vector<int32_t> read_offsets(Device& device, const Tensor& offsets, int64_t num_rows) {
  std::vector<int32_t> at(static_cast<size_t>(offsets.dim(0)));
  device.to_host(at.data(), offsets.raw(), offsets.bytes());
  int64_t last = 0;
  for (size_t e = 0; e < at.size(); ++e) {
    require(at[e] >= last && at[e] <= num_rows, "offset {} of expert {} is not in [{}, {}]", at[e], e, last, num_rows);
    last = at[e];
  }
  return at;
}

void say_once_that_loops_wait(bool& said, std::string_view name) {
  if (said) return;
  said = true;
  log::info("{}: one product per expert, and the host waits for their sizes: {}", name, grouped_version());
}

// What carried out one expert's product, as an implementation of all of them.
KernelSet for_each_expert(KernelSet product) {
  KernelSet all;
  if (product.has(Kernel::cublaslt)) all |= Kernel::cublaslt_per_expert;
  if (product.has(Kernel::own_cuda)) all |= Kernel::own_cuda_per_expert;
  return all;
}

Tensor expert(const Tensor& w, size_t e) {
  const Tensor slice = w.rows(static_cast<int64_t>(e), 1);
  return {slice.raw(), {w.dim(1), w.dim(2)}, w.dtype()};
}

}  // namespace

KernelSet CudaBackend::execute(const GroupedGemm& op, const Tensor& scratch) {
  if (run_grouped(device_, op, scratch)) return Kernel::cutlass_grouped;
  if (!options_.synchronous) say_once_that_loops_wait(said_that_loops_wait_, GroupedGemm::name);
  const std::vector<int32_t> at = read_offsets(device_, op.offsets, op.x.dim(0));
  KernelSet products;
  for (size_t e = 0; e + 1 < at.size(); ++e) {
    const int64_t rows = at[e + 1] - at[e];
    if (rows == 0) continue;
    products |=
        gemm(device_,
             {.c = op.y.rows(at[e], rows), .a = op.x.rows(at[e], rows), .b = expert(op.w, e), .trans_b = op.trans_w});
  }
  return for_each_expert(products);
}

KernelSet CudaBackend::execute(const GroupedGemmWeight& op, const Tensor& scratch) {
  if (run_grouped(device_, op, scratch)) return Kernel::cutlass_grouped;
  if (!options_.synchronous) say_once_that_loops_wait(said_that_loops_wait_, GroupedGemmWeight::name);
  const std::vector<int32_t> at = read_offsets(device_, op.offsets, op.dy.dim(0));
  KernelSet products;
  for (size_t e = 0; e + 1 < at.size(); ++e) {
    const int64_t rows = at[e + 1] - at[e];
    if (rows == 0) continue;
    products |= gemm(device_, {.c = expert(op.dw, e),
                               .a = op.dy.rows(at[e], rows),
                               .b = op.x.rows(at[e], rows),
                               .trans_a = true,
                               .accumulate = true});
  }
  return for_each_expert(products);
}

}  // namespace sluice::cuda
