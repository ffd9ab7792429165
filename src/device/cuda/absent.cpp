#include "device/cuda/cuda.h"

namespace sluice::cuda {

namespace {

constexpr const char* kReason = "sluice was built without CUDA";

[[noreturn]] void refuse() {
  throw user_error("{}", kReason).advise("install the CUDA toolkit (nvcc on the PATH), then configure and build again");
}

}  // namespace

void load_kernels_first() {}

Gpus find_gpus() {
  return {.list = {}, .why_none = kReason, .versions = {}};
}

uint64_t free_memory(int /*ordinal*/) {
  refuse();
}

std::unique_ptr<Backend> make_backend(const CudaOptions& /*options*/) {
  refuse();
}

std::unique_ptr<Memory> make_device_memory(int /*ordinal*/) {
  refuse();
}

std::unique_ptr<Memory> make_pinned_memory() {
  refuse();
}

}  // namespace sluice::cuda
