// Matmul: dense products by cuBLASLt, with a cache of the algorithms it chose. Row-major matrices; sums in f32 (f64 for
// f64), never in TF32.
#pragma once

#include <memory>

#include "ops/gemm.h"

namespace sluice::cuda {

class Device;

class Matmul {
 public:
  explicit Matmul(Device& device);
  ~Matmul();
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;

  // Computes `op` on the device's stream, or returns false, with nothing done, if the library has no way to: operands
  // of two types, alignments it refuses.
  bool run(const Gemm& op);
  // SMs the products leave to communication; 0: none.
  void leave_free(int num_sms);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::cuda
