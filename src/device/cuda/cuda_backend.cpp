#include "device/cuda/cuda_backend.h"

namespace sluice::cuda {

CudaBackend::CudaBackend(const CudaOptions& options) : options_(options), device_(options.ordinal) {
  name_ranges_on(nvtx_.get());
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
