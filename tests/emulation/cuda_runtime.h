// The part of the CUDA runtime that sluice's kernels and their host code use, carried out on the CPU: this folder
// stands before the toolkit on the include path of the library `sluice_cuda_emulated`. Device memory is host memory,
// streams run what they hold when it is waited for (streams.h), and a launch runs its blocks one after the other, the
// threads of a block as fibers that take turns at barriers and warp exchanges (emulator.h). Limits of the hardware are
// checked: block and grid sizes, shared memory, who may miss a barrier. Arithmetic is the host's; nothing here says
// anything about speed. A kernel that runs here under AddressSanitizer reads and writes where it should, whatever the
// GPU then makes of it.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>
#include <utility>

#include "emulation/emulator.h"
#include "emulation/streams.h"

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define __restrict__ __restrict

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

using sluice::emulation::blockDim;
using sluice::emulation::blockIdx;
using sluice::emulation::gridDim;
using sluice::emulation::threadIdx;
inline constexpr int warpSize = 32;

// --- host side --------------------------------------------------------------------------------------------------

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorNotReady = 600 };
using cudaStream_t = sluice::emulation::StreamQueue*;
using cudaEvent_t = sluice::emulation::EventPoint*;
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaEventDisableTiming = 2;
inline constexpr unsigned cudaHostAllocMapped = 2;

struct cudaUUID_t {
  char bytes[16] = {};
};
struct cudaDeviceProp {
  char name[256] = "emulated";
  cudaUUID_t uuid = {};
  int pciDomainID = 0;
  int pciBusID = 0;
  int pciDeviceID = 0;
  size_t totalGlobalMem = size_t{1} << 34;
  int multiProcessorCount = 4;
  int major = 9;
  int minor = 0;
  int l2CacheSize = 1 << 22;
};

inline const char* cudaGetErrorName(cudaError_t) {
  return "cudaError";
}
inline const char* cudaGetErrorString(cudaError_t) {
  return "refused by the emulation";
}
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  return *count = 1, cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) {
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  return *device = 0, cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  return *properties = {}, cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return *free = *total = size_t{1} << 34, cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  return *version = 0, cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  return *version = 0, cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() {
  return sluice::emulation::finish_all_streams(), cudaSuccess;
}

inline cudaError_t cudaMalloc(void** data, size_t bytes) {
  *data = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return *data != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFree(void* data) {
  return sluice::emulation::finish_all_streams(), std::free(data), cudaSuccess;
}
inline cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) {
  return cudaMalloc(data, bytes);
}
inline cudaError_t cudaFreeHost(void* data) {
  return cudaFree(data);
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (bytes > 0) sluice::emulation::put(stream, [=] { std::memmove(to, from, bytes); });
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                                     size_t height, cudaMemcpyKind, cudaStream_t stream) {
  sluice::emulation::put(stream, [=] {
    for (size_t i = 0; i < height; ++i) {
      std::memmove(static_cast<char*>(to) + i * to_pitch, static_cast<const char*>(from) + i * from_pitch, width);
    }
  });
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
  if (bytes > 0) sluice::emulation::put(stream, [=] { std::memset(data, value, bytes); });
  return cudaSuccess;
}

inline cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  return *stream = sluice::emulation::make_stream(), cudaSuccess;
}
inline cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return *least = *greatest = 0, cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return sluice::emulation::drop_stream(stream), cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return sluice::emulation::finish(stream), cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned = 0) {
  return sluice::emulation::wait(stream, event), cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return *event = sluice::emulation::make_event(), cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return sluice::emulation::drop_event(event), cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return sluice::emulation::record(event, stream), cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return sluice::emulation::finish(event), cudaSuccess;
}
inline cudaError_t cudaEventQuery(cudaEvent_t event) {
  return sluice::emulation::reached(event) ? cudaSuccess : cudaErrorNotReady;
}
inline cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) {
  return *ms = 0, cudaSuccess;
}

template <class F>
cudaError_t cudaFuncSetAttribute(F*, cudaFuncAttribute, int bytes) {
  return bytes <= sluice::emulation::kMostSharedMemory ? cudaSuccess : cudaErrorInvalidValue;
}

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  void* attrs = nullptr;
  unsigned numAttrs = 0;
};
template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...), Args&&... args) {
  const auto index = [](const dim3& d) { return sluice::emulation::Index{d.x, d.y, d.z}; };
  sluice::emulation::put(
      config->stream, [kernel, held = std::tuple<Params...>(std::forward<Args>(args)...), grid = index(config->gridDim),
                       block = index(config->blockDim), shared = config->dynamicSmemBytes] {
        sluice::emulation::run(grid, block, shared, [&] { std::apply(kernel, held); });
      });
  return cudaSuccess;
}

// --- device side ------------------------------------------------------------------------------------------------

inline void __syncthreads() {
  sluice::emulation::sync_block();
}
inline void __syncwarp(unsigned mask = 0xffffffffU) {
  sluice::emulation::sync_warp(mask);
}
inline void __threadfence() {}

// The value of another lane of the warp; lanes that do not exist give back the caller's own.
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  const int self = sluice::emulation::lane();
  return sluice::emulation::exchange(mask, value, self / width * width + (lane % width + width) % width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const int self = sluice::emulation::lane();
  const int from = self ^ bits;
  return sluice::emulation::exchange(mask, value, from / width == self / width ? from : self);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int by, int width = 32) {
  const int self = sluice::emulation::lane();
  return sluice::emulation::exchange(mask, value, self % width + by < width ? self + by : self);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int by, int width = 32) {
  const int self = sluice::emulation::lane();
  return sluice::emulation::exchange(mask, value, self % width >= by ? self - by : self);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1U) == 0) continue;
    if (sluice::emulation::exchange(mask, predicate != 0 ? 1 << (lane % 31) : 0, lane) != 0) bits |= 1U << lane;
  }
  return bits & sluice::emulation::lanes_of_warp();
}
// The lanes that have the caller's value.
template <class T>
unsigned __match_any_sync(unsigned mask, T value) {
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1U) == 0) continue;
    if (sluice::emulation::exchange(mask, value, lane) == value) bits |= 1U << lane;
  }
  return bits & sluice::emulation::lanes_of_warp();
}
inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0 ? 1 : 0;
}
inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __ffs(int x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1;
}
inline int __clz(int x) {
  return std::countl_zero(static_cast<unsigned>(x));
}

// Blocks run one after the other and fibers do not preempt each other: plain arithmetic is atomic.
template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return std::exchange(*at, static_cast<T>(*at + value));
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return std::exchange(*at, std::max(*at, value));
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  const T old = *at;
  if (old == expected) *at = value;
  return old;
}

inline float rsqrtf(float x) {
  return 1 / std::sqrt(x);
}
inline double rsqrt(double x) {
  return 1 / std::sqrt(x);
}
inline float __expf(float x) {
  return std::exp(x);
}
inline float __logf(float x) {
  return std::log(x);
}
inline float __fdividef(float x, float y) {
  return x / y;
}
inline void sincospi(double x, double* s, double* c) {
  *s = std::sin(x * 3.14159265358979323846);
  *c = std::cos(x * 3.14159265358979323846);
}
