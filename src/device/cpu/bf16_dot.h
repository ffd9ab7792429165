// The processor's instruction for products of bf16 (VDPBF16PS of AVX-512: two products added to an f32 sum).
#pragma once

namespace sluice::cpu {

// Whether it may be used: the processor and the system have it, and kernels have not been held to a smaller
// instruction set (hwy::SetSupportedTargetsForTest), which a test does to reach what runs without it.
bool has_bf16_dot();

}  // namespace sluice::cpu
