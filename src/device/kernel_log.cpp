#include "device/kernel_log.h"

#include "device/cpu/peak.h"

namespace sluice {

namespace {

// As the keys of model.backend are called.
constexpr std::array<std::string_view, kParts> kPartNames{"attention", "linear", "rms_norm", "experts", "dispatcher"};
constexpr std::array<std::string_view, kMaskForms> kMaskNames{"causal", "sliding window", "sinks"};

std::string describe(Kernel kernel) {
  switch (kernel) {
    case Kernel::simd:
      return "own " + cpu::instruction_set();
    case Kernel::reference:
      return "reference loops";
    case Kernel::cublaslt:
      return "cuBLASLt";
    case Kernel::cudnn:
      return "cuDNN";
    case Kernel::cutlass_grouped:
      return "CUTLASS grouped";
    case Kernel::own_cuda:
      return "own CUDA";
    case Kernel::cublaslt_per_expert:
      return "cuBLASLt per expert";
    case Kernel::own_cuda_per_expert:
      return "own CUDA per expert";
    case Kernel::no_exchange:
      return "no exchange at EP 1";
    case Kernel::threads:
      return "de-duplicated all-to-all, threads";
    case Kernel::threads_on_gpu:
      return "de-duplicated all-to-all, threads on one GPU";
    case Kernel::processes:
      return "de-duplicated all-to-all, processes";
    case Kernel::nccl:
      return "de-duplicated all-to-all, NCCL";
  }
  return {};
}

void append(std::string& list, std::string_view separator, std::string_view item) {
  if (!list.empty()) list += separator;
  list += item;
}

}  // namespace

std::vector<KernelUse> KernelLog::uses() const {
  std::vector<KernelUse> list;
  for (size_t p = 0; p < kParts; ++p) {
    const bool masked = static_cast<Part>(p) == Part::attention;
    std::string ours;
    for (size_t k = 0; k < kKernels; ++k) {
      const auto kernel = static_cast<Kernel>(k);
      std::string masks;
      for (size_t m = 0; m < kMaskForms; ++m) {
        if (ran(static_cast<Part>(p), static_cast<MaskForm>(m)).has(kernel)) append(masks, ", ", kMaskNames[m]);
      }
      if (masks.empty()) continue;
      append(ours, masked ? "; " : " + ", describe(kernel) + (masked ? ": " + masks : ""));
    }
    if (!ours.empty()) list.push_back({std::string(kPartNames[p]), std::move(ours)});
  }
  return list;
}

}  // namespace sluice
