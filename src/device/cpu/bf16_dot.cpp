#include "device/cpu/bf16_dot.h"

#include <hwy/targets.h>

namespace sluice::cpu {

bool has_bf16_dot() {
#if defined(__x86_64__)
  // Kernels that use it convert and mask with the rest of AVX-512 that its processors have.
  return (hwy::SupportedTargets() & HWY_AVX3) != 0 && __builtin_cpu_supports("avx512bf16") != 0 &&
         __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
         __builtin_cpu_supports("avx512dq") != 0;
#else
  return false;
#endif
}

}  // namespace sluice::cpu
