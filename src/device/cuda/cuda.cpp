#include "device/cuda/cuda.h"

#include <cstdlib>

#include "device/cuda/api.h"
#include "device/cuda/cuda_backend.h"
#include "device/cuda/memory.h"

namespace sluice::cuda {

namespace {

std::string hexadecimal(const cudaUUID_t& uuid) {
  std::string text;
  for (const char byte : uuid.bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

}  // namespace

void load_kernels_first() {
  setenv("CUDA_MODULE_LOADING", "EAGER", 0);
}

Gpus find_gpus() {
  Gpus gpus;
  int count = 0;  // left unwritten by the call where there is no driver
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) count = 0;
  if (count == 0) {
    gpus.why_none = fmt::format("no GPU or driver: {} ({})", cudaGetErrorName(status), static_cast<int>(status));
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, i), "cudaGetDeviceProperties");
    gpus.list.push_back({.name = properties.name,
                         .num_sms = properties.multiProcessorCount,
                         .capability = 10 * properties.major + properties.minor,
                         .memory_bytes = properties.totalGlobalMem,
                         .uuid = hexadecimal(properties.uuid),
                         .pci = fmt::format("{:04x}:{:02x}:{:02x}.0", properties.pciDomainID, properties.pciBusID,
                                            properties.pciDeviceID)});
  }
  gpus.versions = library_versions();
  return gpus;
}

uint64_t free_memory(int ordinal) {
  check(cudaSetDevice(ordinal), "choosing the GPU");
  size_t free = 0;
  size_t total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return free;
}

std::unique_ptr<Backend> make_backend(const CudaOptions& options) {
  return std::make_unique<CudaBackend>(options);
}

std::unique_ptr<Memory> make_device_memory(int ordinal) {
  return std::make_unique<DeviceMemory>(ordinal);
}

std::unique_ptr<Memory> make_pinned_memory() {
  return std::make_unique<PinnedMemory>();
}

}  // namespace sluice::cuda
