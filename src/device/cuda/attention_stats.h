// Attention's statistics between the layouts of our operations (token by token) and of cuDNN (head by head).
#pragma once

#include <cstdint>

namespace sluice::cuda {

class Device;

// Transposes `count` matrices of rows x cols that lie one after the other.
void transpose_stats(Device& device, float* to, const float* from, int64_t count, int64_t rows, int64_t cols);

}  // namespace sluice::cuda
