// Runs a kernel's threads on the CPU: the blocks of a grid one after the other, the threads of a block as fibers of the
// calling thread that yield at barriers. Deterministic. A barrier that some threads of a block have left for good, and
// sizes the hardware refuses, end the launch with an exception.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

namespace sluice::emulation {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

// Of the fiber that runs.
extern thread_local Index threadIdx, blockIdx, blockDim, gridDim;
int lane();

inline constexpr int kMostSharedMemory = 227 * 1024;
// Dynamic shared memory of the block; aligned to 1024 bytes, filled with NaN before each block.
void* shared_memory();

void run(const Index& grid, const Index& block, size_t shared_bytes, const std::function<void()>& kernel);

void sync_block();
void sync_warp(unsigned mask);
// Lanes that the running fiber's warp has.
unsigned lanes_of_warp();
// Gives `bytes` of this lane to the others of `mask` and returns those of `lane` (this lane's own if there is no such).
void exchange_bytes(unsigned mask, void* value, size_t bytes, int lane);

template <class T>
T exchange(unsigned mask, T value, int lane) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 16);
  exchange_bytes(mask, &value, sizeof(T), lane);
  return value;
}

}  // namespace sluice::emulation
