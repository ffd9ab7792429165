#include "device/cuda/cuda_backend.h"

namespace sluice::cuda {

CudaBackend::CudaBackend(const CudaOptions& options) : options_(options), device_(options.ordinal) {
  name_ranges_on(nvtx_.get());
  // It takes memory, which may wait for all that the GPU does: now, and not while that is in a collective.
  device_.matmul();
}

void CudaBackend::read(const Tensor& t, void* to) {
  device_.to_host(to, t.raw(), t.bytes());
  if (after_read_) after_read_();
}

void CudaBackend::write(const Tensor& t, const void* from) {
  device_.to_device(t.raw(), from, t.bytes());
}

void CudaBackend::executed() {
  if (options_.synchronous) device_.synchronize();
}

}  // namespace sluice::cuda
