#include "emulation/emulated.h"

#include "device/cuda/cuda.h"

namespace sluice::emulation {

std::unique_ptr<Backend> make_backend(int row_align, bool synchronous) {
  return cuda::make_backend({.row_align = row_align, .synchronous = synchronous});
}

std::unique_ptr<Memory> make_memory() {
  return cuda::make_device_memory(0);
}

}  // namespace sluice::emulation
