// Instruction sets the kernels are compiled for; the best one present is chosen at run time. To be included before
// hwy/foreach_target.h.
#pragma once

// A scalar fallback, AVX2 and AVX-512; targets in between would double the build for nothing.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
