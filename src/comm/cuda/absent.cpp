// For builds without CUDA.
#include "base/error.h"
#include "comm/cuda/cuda_mover.h"

namespace sluice::cuda {

std::unique_ptr<Mover> make_mover(int /*ordinal*/) {
  throw user_error("sluice was built without CUDA");
}

}  // namespace sluice::cuda
