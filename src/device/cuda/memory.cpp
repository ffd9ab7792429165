#include "device/cuda/memory.h"

#include "device/cuda/api.h"

namespace sluice::cuda {

void* DeviceMemory::take(size_t bytes) {
  check(cudaSetDevice(ordinal_), "choosing the GPU");
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it would be reported again by the next call
    return nullptr;
  }
  check(status, "cudaMalloc");
  return data;
}

// Runs in destructors: an error here has been reported by whatever caused it.
void DeviceMemory::give_back(void* data, size_t /*bytes*/) {
  cudaFree(data);
}

void* PinnedMemory::take(size_t bytes) {
  void* data = nullptr;
  return cudaHostAlloc(&data, bytes, cudaHostAllocMapped) == cudaSuccess ? data : nullptr;
}

void PinnedMemory::give_back(void* data, size_t /*bytes*/) {
  cudaFreeHost(data);
}

}  // namespace sluice::cuda
