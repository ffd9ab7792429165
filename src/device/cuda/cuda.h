// CUDA as the rest of the program sees it: without its headers, and there to be called in every build. Where sluice was
// built without CUDA (absent.cpp) there are no GPUs and making something fails with that reason.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "device/backend.h"
#include "tensor/memory.h"

namespace sluice::cuda {

struct Gpu {
  std::string name;
  int num_sms = 0;
  int capability = 0;  // 90 for sm_90
  uint64_t memory_bytes = 0;
  std::string uuid;  // 32 hexadecimal digits that no other GPU has
  std::string pci;   // its address there: "0000:3b:00.0"
};

struct Gpus {
  std::vector<Gpu> list;
  // Why the list is empty: "sluice was built without CUDA", "no GPU or driver: cudaErrorNoDevice (100)".
  std::string why_none;
  // "CUDA 13.0, driver 13.0, cuBLAS 13.1, cuDNN 9.19, CUTLASS 4.2"; empty where built without.
  std::string versions;
};
Gpus find_gpus();
// Kernels are loaded when CUDA begins, and not each at its first launch: that one waits until the GPU is idle, which
// may never be while it is in a collective whose other ranks wait for this one. To be called before anything else here;
// what the environment says (CUDA_MODULE_LOADING) stays.
void load_kernels_first();
// Bytes of a GPU's memory that nobody has taken.
uint64_t free_memory(int ordinal);

struct CudaOptions {
  int ordinal = 0;
  // Rows that expert segments are rounded up to: what the grouped kernels want. Tests take less.
  int row_align = 128;
  // Wait after every operation, so that errors show where they arise and the host may look at results.
  bool synchronous = false;
};

std::unique_ptr<Backend> make_backend(const CudaOptions& options);
std::unique_ptr<Memory> make_device_memory(int ordinal);
// Host memory that the GPU reads and writes in place.
std::unique_ptr<Memory> make_pinned_memory();

}  // namespace sluice::cuda
