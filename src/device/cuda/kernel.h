// What kernels share: the launch, element access in 16-byte pieces, reductions in a warp and a block, faults.
// Included by .cu files only. Legend: T storage type, A = accumulator_t<T>, N elements of a 16-byte piece.
#pragma once

#include <cstdint>

#include "device/cuda/api.h"
#include "device/cuda/fault.h"
#include "tensor/tensor.h"

namespace sluice::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;

// --- launch -----------------------------------------------------------------------------------------------------

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Runs a kernel; a grid without blocks is no launch. `what` is the operation's name, for errors. Arguments are
// converted to the kernel's parameters.
template <class... Params, class... Args>
void launch(std::string_view what, void (*kernel)(Params...), dim3 grid, int threads, size_t shared_bytes,
            cudaStream_t stream, Args... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  constexpr size_t kUnaskedShared = 48 * 1024;
  const std::string name(what);
  if (shared_bytes > kUnaskedShared) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
          name.c_str());
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), name.c_str());
}

// A grid of so many blocks in one dimension.
inline dim3 blocks(int64_t count) {
  return dim3(static_cast<unsigned>(count));
}
// Blocks for `items` of work in a grid-stride loop: enough to fill the GPU several times over, no more than items.
inline dim3 blocks_for(int64_t items, int64_t items_per_block, int num_sms) {
  const int64_t needed = ceil_div(items, items_per_block);
  const int64_t most = int64_t{num_sms} * 16;
  return blocks(needed < most ? needed : most);
}

// Threads of a block that works on one row of so many pieces: whole warps, no more than there is work for.
inline int row_threads(int64_t pieces, int most) {
  const int64_t warps = ceil_div(pieces < 1 ? 1 : pieces, kWarp);
  return static_cast<int>(warps * kWarp < most ? warps * kWarp : most);
}

// --- elements ---------------------------------------------------------------------------------------------------

// Arithmetic is in the accumulator type; conversions use the hardware's where there is one.
template <class T>
__device__ __forceinline__ accumulator_t<T> load(T x) {
  return static_cast<accumulator_t<T>>(x);
}
template <class T>
__device__ __forceinline__ T store(accumulator_t<T> x) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == 2) {
    T result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
  }
#endif
  return static_cast<T>(x);
}

// N elements that are loaded and stored at once: 16 bytes, or one element where addresses or widths do not allow it.
template <class T, int N>
struct alignas(sizeof(T) * N) Piece {
  T at[N];
};
// f64 is for comparisons, not for speed.
template <class T>
inline constexpr int kPiece = sizeof(T) == 8 ? 1 : 16 / static_cast<int>(sizeof(T));

template <class T, int N>
__device__ __forceinline__ Piece<T, N> load_piece(const T* from) {
  return *reinterpret_cast<const Piece<T, N>*>(from);
}
template <class T, int N>
__device__ __forceinline__ void store_piece(T* to, const Piece<T, N>& piece) {
  *reinterpret_cast<Piece<T, N>*>(to) = piece;
}

// Whether all rows of a tensor are made of 16-byte pieces. Undefined tensors are.
inline bool in_pieces(const Tensor& t) {
  if (!t.defined() || t.numel() == 0) return true;
  const auto size = static_cast<int64_t>(size_of(t.dtype()));
  const int64_t inner = t.rank() > 1 ? t.dim(t.rank() - 1) : t.dim(0);
  const bool rows = t.rank() <= 1 || t.dim(0) <= 1 || t.stride() * size % 16 == 0;
  return reinterpret_cast<uintptr_t>(t.raw()) % 16 == 0 && inner * size % 16 == 0 && rows;
}

// Calls f with the number of elements to move at once, as std::integral_constant<int, N>.
template <class T, class F>
void with_pieces(bool pieces, F&& f) {
  if (kPiece<T> > 1 && pieces) {
    f(std::integral_constant<int, kPiece<T>>{});
  } else {
    f(std::integral_constant<int, 1>{});
  }
}

// --- reductions -------------------------------------------------------------------------------------------------
// The same order of additions in every run.

template <class A>
__device__ __forceinline__ A warp_sum(A x) {
  for (int bits = kWarp / 2; bits > 0; bits /= 2) x += __shfl_xor_sync(kAllLanes, x, bits);
  return x;
}
template <class A>
__device__ __forceinline__ A warp_max(A x) {
  for (int bits = kWarp / 2; bits > 0; bits /= 2) {
    const A y = __shfl_xor_sync(kAllLanes, x, bits);
    x = y > x || y != y ? y : x;  // a NaN stays
  }
  return x;
}

// Over a block of whole warps, at most 1024 threads; every thread gets the result. All threads call it.
template <class A>
__device__ __forceinline__ A block_sum(A x) {
  __shared__ A parts[kWarp];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  x = warp_sum(x);
  __syncthreads();  // parts may still be read from the call before
  if (lane == 0) parts[warp] = x;
  __syncthreads();
  return warp_sum(lane < static_cast<int>(blockDim.x) / kWarp ? parts[lane] : A{0});
}
template <class A>
__device__ __forceinline__ A block_max(A x) {
  __shared__ A parts[kWarp];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  x = warp_max(x);
  __syncthreads();
  if (lane == 0) parts[warp] = x;
  __syncthreads();
  return warp_max(parts[lane < static_cast<int>(blockDim.x) / kWarp ? lane : 0]);
}

// --- shared memory and faults -----------------------------------------------------------------------------------

#ifdef __CUDACC__
// The dynamic shared memory of the block, aligned to 1024 bytes when it is the only shared memory.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char sluice_dynamic_shared[];
  return reinterpret_cast<T*>(sluice_dynamic_shared);
}
#else
template <class T>
T* dynamic_shared() {
  return static_cast<T*>(emulation::shared_memory());
}
#endif

__device__ __forceinline__ void report(Fault* fault, FaultKind kind, int64_t value, int64_t bound) {
  if (atomicCAS(&fault->claimed, 0, 1) != 0) return;
  fault->value = value;
  fault->bound = bound;
  __threadfence();
  fault->kind = static_cast<int32_t>(kind);
}
// `value` if it is in [0, bound), else reports it and gives 0.
__device__ __forceinline__ int64_t checked(Fault* fault, FaultKind kind, int64_t value, int64_t bound) {
  if (value >= 0 && value < bound) return value;
  report(fault, kind, value, bound);
  return 0;
}

}  // namespace sluice::cuda
