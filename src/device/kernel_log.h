// KernelLog: which kernels carried out the parts of a model (ops/op.h) that benchmark files name a kernel for. The
// code that executes an operation returns what it used, so the log holds what ran and not what was meant to.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ops/op.h"

namespace sluice {

enum class Kernel : uint8_t {
  simd,       // the fast path on a CPU, in the instruction set that was chosen at run time
  reference,  // plain loops
  cublaslt,
  cudnn,
  cutlass_grouped,
  own_cuda,
  cublaslt_per_expert,  // one product after the other
  own_cuda_per_expert,
  no_exchange,  // of tokens: all experts are on the rank
  threads,      // an exchange among threads, in the host's memory
  threads_on_gpu,
  processes,  // an exchange among processes, in the host's memory
  nccl,
};
inline constexpr size_t kKernels = 13;

class KernelSet {
 public:
  constexpr KernelSet() = default;
  constexpr KernelSet(Kernel kernel) : bits_(bit(kernel)) {}  // NOLINT(google-explicit-constructor): a set of one

  constexpr bool has(Kernel kernel) const { return (bits_ & bit(kernel)) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr KernelSet& operator|=(KernelSet other) {
    bits_ |= other.bits_;
    return *this;
  }
  bool operator==(const KernelSet&) const = default;

 private:
  friend class KernelLog;
  static constexpr uint32_t bit(Kernel kernel) { return uint32_t{1} << static_cast<unsigned>(kernel); }
  uint32_t bits_ = 0;
};

// One part in words: "attention", "own AVX-512: causal, sliding window".
struct KernelUse {
  std::string part;
  std::string ours;
};

// Any thread may add and ask at any time.
class KernelLog {
 public:
  // `mask` is of attention.
  void add(Part part, MaskForm mask, KernelSet kernels) {
    std::atomic<uint32_t>& ran = ran_[index(part, mask)];
    const uint32_t before = ran.load(std::memory_order_relaxed);
    if ((before | kernels.bits_) != before) ran.fetch_or(kernels.bits_, std::memory_order_relaxed);
  }
  KernelSet ran(Part part, MaskForm mask = {}) const {
    KernelSet kernels;
    kernels.bits_ = ran_[index(part, mask)].load(std::memory_order_relaxed);
    return kernels;
  }
  // The parts that ran, each with all that carried it out.
  std::vector<KernelUse> uses() const;

 private:
  static constexpr size_t index(Part part, MaskForm mask) {
    return static_cast<size_t>(part) * kMaskForms + static_cast<size_t>(mask);
  }
  std::array<std::atomic<uint32_t>, kParts * kMaskForms> ran_{};
};

}  // namespace sluice
