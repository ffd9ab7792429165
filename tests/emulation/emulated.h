// The CUDA backend as it runs on the CPU (cuda_runtime.h in this folder): its kernels, and everything of its host side
// but the calls into NVIDIA's libraries.
#pragma once

#include <cstdint>
#include <memory>

#include "device/backend.h"
#include "tensor/memory.h"

namespace sluice::emulation {

std::unique_ptr<Backend> make_backend(int row_align);
std::unique_ptr<Memory> make_memory();
// How many grouped operations of this thread went to the grouped kernels (grouped.cpp) so far.
int64_t grouped_products();

}  // namespace sluice::emulation
