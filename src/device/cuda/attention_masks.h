// Which scores attention uses, and how: what the plain kernels are parameterised by. A mask says for one sequence which
// keys a query may see (at least one), within which bounds to look for them, and how a score is changed; a new one is a
// struct with these functions. Included by .cu files only.
#pragma once

#include "device/cuda/kernel.h"

namespace sluice::cuda {

// Keys up to the query itself; with a window W > 0 only the last W of them.
struct CausalMask {
  int64_t window = 0;

  // The mask of the sequence that starts at this row.
  __device__ __forceinline__ CausalMask of_sequence(int64_t /*first_row*/) const { return *this; }
  // Queries and keys are positions in the sequence.
  __device__ __forceinline__ bool visible(int64_t query, int64_t key) const {
    return key <= query && (window == 0 || key > query - window);
  }
  // Bounds: keys [first_key, end_key) cover what the queries [query, last_query] see.
  __device__ __forceinline__ int64_t first_key(int64_t query) const {
    return window == 0 || query < window ? 0 : query - window + 1;
  }
  __device__ __forceinline__ int64_t end_key(int64_t last_query) const { return last_query + 1; }
  // Bounds: queries [first_query, end_query) cover what sees the keys [key, last_key].
  __device__ __forceinline__ int64_t first_query(int64_t key) const { return key; }
  __device__ __forceinline__ int64_t end_query(int64_t last_key, int64_t seq_len) const {
    return window == 0 || window > seq_len - last_key ? seq_len : last_key + window;
  }
  // A scaled score as it enters the softmax, and its derivative.
  template <class A>
  __device__ __forceinline__ A score(A scaled) const {
    return scaled;
  }
  template <class A>
  __device__ __forceinline__ A slope(A /*scaled*/) const {
    return 1;
  }
};

}  // namespace sluice::cuda
