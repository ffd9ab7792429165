// The CUDA backend as it runs on the CPU (cuda_runtime.h in this folder): its kernels, and everything of its host side
// but the calls into NVIDIA's libraries.
#pragma once

#include <cstdint>
#include <memory>

#include "comm/inproc/mover.h"
#include "device/backend.h"
#include "tensor/memory.h"

namespace sluice::emulation {

// `synchronous`: every operation has run when its call returns; otherwise it runs when somebody waits for it.
std::unique_ptr<Backend> make_backend(int row_align, bool synchronous);
std::unique_ptr<Memory> make_memory();
std::unique_ptr<Mover> make_mover();
// How many grouped operations of this thread went to the grouped kernels (grouped.cpp) so far.
int64_t grouped_products();

}  // namespace sluice::emulation
