// The libraries that only a GPU has: in the emulation the plain kernels do everything.
#include "device/cuda/device.h"
#include "device/cuda/matmul.h"

namespace sluice::cuda {

struct Matmul::State {};
Matmul::Matmul(Device& /*device*/) {}
Matmul::~Matmul() = default;
bool Matmul::run(const Gemm& /*op*/) {
  return false;
}
void Matmul::leave_free(int /*num_sms*/) {}

std::string library_versions() {
  return "emulated";
}

}  // namespace sluice::cuda
