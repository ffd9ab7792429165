#include "device/cuda/attention_stats.h"
#include "device/cuda/device.h"
#include "device/cuda/kernel.h"

namespace sluice::cuda {

namespace {

constexpr int kTile = kWarp;
constexpr int kTileRows = 8;  // of a tile, moved at once

// A block moves a tile, reading and writing along rows.
__global__ void __launch_bounds__(kTile* kTileRows)
    transpose_tiles(float* to, const float* from, int64_t rows, int64_t cols) {
  __shared__ float tile[kTile][kTile + 1];
  const int64_t tiles_across = ceil_div(cols, kTile), tiles = ceil_div(rows, kTile) * tiles_across;
  const int64_t matrix = blockIdx.x / tiles * rows * cols;
  const int64_t first_row = blockIdx.x % tiles / tiles_across * kTile;
  const int64_t first_col = blockIdx.x % tiles % tiles_across * kTile;
  const int lane = static_cast<int>(threadIdx.x) % kTile, part = static_cast<int>(threadIdx.x) / kTile;
  for (int i = part; i < kTile; i += kTileRows) {
    const int64_t row = first_row + i, col = first_col + lane;
    if (row < rows && col < cols) tile[i][lane] = from[matrix + row * cols + col];
  }
  __syncthreads();
  for (int i = part; i < kTile; i += kTileRows) {
    const int64_t row = first_row + lane, col = first_col + i;
    if (row < rows && col < cols) to[matrix + col * rows + row] = tile[lane][i];
  }
}

}  // namespace

void transpose_stats(Device& device, float* to, const float* from, int64_t count, int64_t rows, int64_t cols) {
  const int64_t tiles = ceil_div(rows, kTile) * ceil_div(cols, kTile);
  launch("transpose_stats", transpose_tiles, blocks(count * tiles), kTile * kTileRows, 0, device.stream(), to, from,
         rows, cols);
}

}  // namespace sluice::cuda
