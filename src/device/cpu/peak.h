// What this machine can do at best, measured: the denominators of every efficiency printed. A few hundred
// milliseconds each.
#pragma once

#include <string>

#include "device/pool.h"

namespace sluice::cpu {

// f32 multiply-adds in registers on all threads of the pool, in GFLOP/s (a multiply-add is two).
double measure_fma_peak(Pool& pool);
// The same of bf16 pairs into f32 sums, by the instruction that has_bf16_dot() says is there; 0 where it is not.
double measure_bf16_peak(Pool& pool);
// Large copies on all threads of the pool, in GB/s of bytes read plus bytes written.
double measure_bandwidth(Pool& pool);
// The instruction set the kernels chose: "AVX-512", "AVX2".
std::string instruction_set();

}  // namespace sluice::cpu
