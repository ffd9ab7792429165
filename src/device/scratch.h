// Working memory of operations: what an operation says itself (op.scratch()), where all devices need the same, or what
// a device's kernels need, in the scratch.h beside them. An operation that neither names needs none.
#pragma once

#include "device/cpu/scratch.h"
#include "device/cuda/scratch.h"
#include "device/target.h"

namespace sluice {

// In bytes.
template <class O>
size_t scratch_of(const O& op, const Target& target) {
  if constexpr (requires { op.scratch(); }) return op.scratch();
  switch (target.platform) {
    case Platform::cpu:
      if constexpr (requires { cpu::scratch_bytes(op, target.workers); }) {
        return cpu::scratch_bytes(op, target.workers);
      }
      break;
    case Platform::gpu:
      if constexpr (requires { gpu::scratch_bytes(op); }) return gpu::scratch_bytes(op);
      break;
  }
  return 0;
}

}  // namespace sluice
