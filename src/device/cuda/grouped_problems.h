// The products of a grouped operation as the grouped kernels read them: one (m, n, k) per expert with pointers and
// strides, written on the device from the offsets. The host reads nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "device/cuda/scratch.h"
#include "ops/gemm.h"

namespace sluice::cuda {

class Device;

// d = a b  or  d += a b  for each expert, [m, n] = [m, k] [k, n]; each array has an element per expert, sizes three.
// An expert without rows has m = 0: no tile of its result is touched.
struct GroupedProblems {
  int64_t num_experts = 0;
  const void** a = nullptr;
  const void** b = nullptr;
  void** d = nullptr;
  int64_t* a_stride = nullptr;  // elements between rows as they lie in memory
  int64_t* b_stride = nullptr;
  int64_t* d_stride = nullptr;
  int32_t* sizes = nullptr;
  void* workspace = nullptr;  // kGroupedTensorMapBytes for the kernel's own use
};

// Has the problems written on the device's stream, into scratch. Nothing, with nothing done, for what the kernels do
// not take: other types than bf16 operands with y bf16 or dw f32, widths and strides that are not multiples of 8,
// unaligned matrices, too little scratch. Bad offsets are reported and clamped to the rows there are.
std::optional<GroupedProblems> make_problems(Device& device, const GroupedGemm& op, const Tensor& scratch);
std::optional<GroupedProblems> make_problems(Device& device, const GroupedGemmWeight& op, const Tensor& scratch);

}  // namespace sluice::cuda
