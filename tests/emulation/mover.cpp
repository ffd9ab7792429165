#include "comm/cuda/cuda_mover.h"
#include "emulation/emulated.h"

namespace sluice::emulation {

std::unique_ptr<Mover> make_mover() {
  return cuda::make_mover(0);
}

}  // namespace sluice::emulation
