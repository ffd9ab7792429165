// Choosing the best experts of a token: what the routers share. A warp makes a token; its keys stand in shared memory,
// each read and written by one lane alone. Included by .cu files only.
#pragma once

#include <bit>
#include <cmath>

#include "device/cuda/kernel.h"

namespace sluice::cuda {

inline constexpr int kRouterThreads = 128;  // at most, in a block

// Unsigned integers in the order of the numbers. -0 is 0 and all NaNs are one value above infinity, so that the order
// is total whatever the input; 0 is below all of them.
template <class A>
struct Order {
  using Key = std::conditional_t<sizeof(A) == 8, uint64_t, uint32_t>;
  static constexpr Key kSign = Key{1} << (8 * sizeof(A) - 1);

  static __device__ __forceinline__ Key key(A x) {
    if (x != x) return ~Key{0};
    const Key bits = std::bit_cast<Key>(x + A{0});
    return (bits & kSign) != 0 ? ~bits : bits | kSign;
  }
  static __device__ __forceinline__ A value(Key key) {
    return std::bit_cast<A>((key & kSign) != 0 ? key ^ kSign : ~key);
  }
};

// Calls put(j, expert, key) on all lanes for the K experts of the largest keys in descending order, of equal keys the
// lower expert first. Uses up the keys.
template <class Key, class Put>
__device__ __forceinline__ void best_experts(Key* keys, int64_t num_experts, int64_t top_k, int lane, Put&& put) {
  constexpr int kNone = 1 << 30;
  for (int64_t j = 0; j < top_k; ++j) {
    Key best = 0;
    int at = kNone;
    for (int64_t e = lane; e < num_experts; e += kWarp) {
      if (keys[e] <= best) continue;
      best = keys[e];
      at = static_cast<int>(e);
    }
    const Key most = warp_max(best);
    const int expert = -warp_max(best == most ? -at : -kNone);
    if (expert % kWarp == lane) keys[expert] = 0;
    put(j, expert, most);
  }
}

// The token of this warp, and its keys. Whole warps have none.
__device__ __forceinline__ int64_t token_of_warp() {
  return (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
}
template <class Key>
__device__ __forceinline__ Key* keys_of_warp(int64_t num_experts) {
  return dynamic_shared<Key>() + threadIdx.x / kWarp * num_experts;
}

// A warp for each token, fewer in a block where their keys would not fit in its shared memory.
struct WarpPerToken {
  int threads;
  dim3 grid;
  size_t shared_bytes;

  WarpPerToken(int64_t num_tokens, size_t key_bytes_per_token) {
    constexpr size_t kMostShared = 48 * 1024;
    threads = key_bytes_per_token * kRouterThreads / kWarp > kMostShared ? kWarp : kRouterThreads;
    grid = blocks(ceil_div(num_tokens * kWarp, threads));
    shared_bytes = key_bytes_per_token * static_cast<size_t>(threads) / kWarp;
  }
};

// Calls f(T{}) for a tensor of the accumulator type.
template <class F>
void dispatch_accumulator(DType dtype, F&& f) {
  dtype == DType::f64 ? f(double{}) : f(float{});
}

}  // namespace sluice::cuda
