// SLUICE_HOST_DEVICE: marks a function that kernels call too. Those that are constexpr need no mark.
#pragma once

#ifdef __CUDACC__
#define SLUICE_HOST_DEVICE __host__ __device__
#else
#define SLUICE_HOST_DEVICE
#endif
