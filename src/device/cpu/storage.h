// The types in which the fast path's kernels read and write; arithmetic is in f32.
#pragma once

#include "tensor/dtype.h"

namespace sluice::cpu {

// Calls f(T{}) for f32 and bf16 and returns true. f64, which only the reference loops compute in, gives false.
template <class F>
bool dispatch_storage(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32:
      f(float{});
      return true;
    case DType::bf16:
      f(bf16{});
      return true;
    default:
      return false;
  }
}

}  // namespace sluice::cpu
