// Elementwise sums and maxima over the buffers of several ranks.
#pragma once

#include <span>

#include "comm/communicator.h"

namespace sluice {

// Every out = the sum (in the order of `in`, bf16 in f32 and rounded once) or maximum (a NaN stays) of `in`. An out may
// be one of `in`.
void reduce_buffers(DType dtype, ReduceOp op, std::span<void* const> out, std::span<const void* const> in, int64_t n);

}  // namespace sluice
