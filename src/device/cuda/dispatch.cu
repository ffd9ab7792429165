#include "device/cuda/cuda_backend.h"
#include "device/cuda/kernel.h"
#include "device/cuda/scratch.h"

namespace sluice::cuda {

namespace {

// A stable counting sort of (token, slot) pairs by key: warps count the keys of a run of tokens each, the counts are
// summed over the runs before, warps put their pairs in place. No atomic decides an order.
constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;

// What is sorted: pair i, of token i / K, has the key of(i), or -1 and is left out.
struct ByLocalExpert {
  const int32_t* experts;
  int64_t top_k, first, num_experts;
  bool folded;

  __device__ __forceinline__ int any_key(int64_t i) const {
    const int64_t e = folded ? experts[i] % static_cast<int32_t>(num_experts) : experts[i] - first;
    return e >= 0 && e < num_experts ? static_cast<int>(e) : -1;
  }
  __device__ __forceinline__ int of(int64_t i) const { return any_key(i); }
};
// A token counts once for a rank, for the first of its experts there.
struct ByRank {
  const int32_t* experts;
  int64_t top_k, num_experts, per_rank;
  Fault* fault;

  __device__ __forceinline__ int any_key(int64_t i) const {
    return static_cast<int>(checked(fault, FaultKind::expert, experts[i], num_experts) / per_rank);
  }
  __device__ __forceinline__ int of(int64_t i) const {
    const int rank = any_key(i);
    for (int64_t j = i / top_k * top_k; j < i; ++j) {
      if (any_key(j) == rank) return -1;
    }
    return rank;
  }
};

struct Run {
  int64_t number, begin, end;  // of pairs
};
__device__ __forceinline__ Run run_of_warp(int64_t num_pairs, int64_t pairs_per_run) {
  const int64_t number = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarp;
  const int64_t begin = number * pairs_per_run, end = begin + pairs_per_run;
  return {number, begin < num_pairs ? begin : num_pairs, end < num_pairs ? end : num_pairs};
}

// put(i, get(0) + .. + get(i - 1)) for i in [0, n), by a warp; the total is returned.
template <class Get, class Put>
__device__ __forceinline__ int64_t exclusive_scan(int64_t n, int lane, Get&& get, Put&& put) {
  const int64_t each = (n + kWarp - 1) / kWarp;
  const int64_t begin = lane * each, end = begin + each < n ? begin + each : n;
  int64_t sum = 0;
  for (int64_t i = begin; i < end; ++i) sum += get(i);
  int64_t upto = sum;
  for (int by = 1; by < kWarp; by *= 2) {
    const int64_t before = __shfl_up_sync(kAllLanes, upto, by);
    if (lane >= by) upto += before;
  }
  int64_t at = upto - sum;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t value = get(i);
    put(i, at);
    at += value;
  }
  return __shfl_sync(kAllLanes, upto, kWarp - 1);
}

// counts[key, run]: pairs sorted by of(); behind those of all keys, if wanted, pairs by any_key(). Rows are emptied.
template <class Keys>
__global__ void __launch_bounds__(kThreads)
    count_keys(int32_t* counts, int32_t* row_token, int32_t* row_slot, int64_t num_rows, Keys keys, int64_t num_keys,
               bool count_any, int64_t num_pairs, int64_t pairs_per_run, int64_t num_runs) {
  const Run run = run_of_warp(num_pairs, pairs_per_run);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t num_counts = count_any ? 2 * num_keys : num_keys;
  int32_t* mine = dynamic_shared<int32_t>() + threadIdx.x / kWarp * num_counts;
  for (int64_t i = lane; i < num_counts; i += kWarp) mine[i] = 0;
  __syncwarp();
  for (int64_t i = run.begin + lane; i < run.end; i += kWarp) {
    const int key = keys.of(i);
    if (key >= 0) atomicAdd(&mine[key], 1);
    if (count_any) atomicAdd(&mine[num_keys + keys.any_key(i)], 1);
  }
  __syncwarp();
  if (run.number < num_runs) {
    for (int64_t i = lane; i < num_counts; i += kWarp) counts[i * num_runs + run.number] = mine[i];
  }
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < num_rows; i += step) {
    row_token[i] = -1;
    if (row_slot != nullptr) row_slot[i] = -1;
  }
}

// counts[key, run] becomes that of the runs before; totals[key] is that of all. A warp makes a key.
__global__ void __launch_bounds__(kThreads)
    sum_runs(int32_t* counts, int32_t* totals, int64_t num_counts, int64_t num_runs) {
  const int64_t key = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (key >= num_counts) return;
  int32_t* at = counts + key * num_runs;
  const int64_t total = exclusive_scan(
      num_runs, lane, [&](int64_t i) { return at[i]; },
      [&](int64_t i, int64_t sum) { at[i] = static_cast<int32_t>(sum); });
  if (lane == 0) totals[key] = static_cast<int32_t>(total);
}

struct Sorted {
  int32_t* row_token;    // [num_rows]
  int32_t* row_slot;     // likewise, or null
  int32_t* slot_row;     // [T, width]
  int32_t* offsets;      // [num_keys + 1], or null
  int32_t* rank_counts;  // [num_keys, 2], or null
  int64_t num_rows, width, row_align;
};

template <class Keys>
__global__ void __launch_bounds__(kThreads)
    place_pairs(Sorted out, const int32_t* counts, const int32_t* totals, Keys keys, int64_t num_keys,
                int64_t num_pairs, int64_t pairs_per_run, int64_t num_runs, Fault* fault) {
  const Run run = run_of_warp(num_pairs, pairs_per_run);
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  auto* starts = dynamic_shared<int32_t>();        // of keys, no more than there are rows
  int32_t* next = starts + (1 + warp) * num_keys;  // row of this warp's next pair of a key
  const auto clipped = [&](int64_t row) { return static_cast<int32_t>(row < out.num_rows ? row : out.num_rows); };

  if (warp == 0) {
    const int64_t total = exclusive_scan(
        num_keys, lane,
        [&](int64_t key) {
          const int64_t count = out.row_align > 1 && totals[key] == 0 ? 1 : totals[key];
          return (count + out.row_align - 1) / out.row_align * out.row_align;
        },
        [&](int64_t key, int64_t start) { starts[key] = clipped(start); });
    __syncwarp();
    if (blockIdx.x == 0 && out.offsets != nullptr) {
      for (int64_t key = lane; key < num_keys; key += kWarp) out.offsets[key] = starts[key];
      if (lane == 0) out.offsets[num_keys] = clipped(total);
      if (lane == 0 && total > out.num_rows) report(fault, FaultKind::expert_rows, total, out.num_rows);
    }
    if (blockIdx.x == 0 && out.rank_counts != nullptr) {
      for (int64_t i = lane; i < 2 * num_keys; i += kWarp) {
        out.rank_counts[i] = totals[i % 2 * num_keys + i / 2];
      }
    }
  }
  __syncthreads();
  if (run.number >= num_runs) return;
  for (int64_t key = lane; key < num_keys; key += kWarp) {
    next[key] = starts[key] + counts[key * num_runs + run.number];
  }
  __syncwarp();

  for (int64_t from = run.begin; from < run.end; from += kWarp) {
    const int64_t i = from + lane;
    const int key = i < run.end ? keys.of(i) : -1;
    const unsigned alike = __match_any_sync(kAllLanes, key);
    const int before = __popc(alike & ((1U << lane) - 1));
    int64_t row = key >= 0 ? next[key] + before : -1;
    if (row >= out.num_rows) row = -1;
    __syncwarp();
    if (key >= 0 && before == 0) next[key] += __popc(alike);
    __syncwarp();
    if (i >= run.end) continue;

    // Rows ascend with key and slot, so a pair's place among its token's is known from their keys.
    const int64_t token = i / keys.top_k, first = token * keys.top_k;
    int64_t place = 0;
    for (int64_t j = first; j < first + keys.top_k; ++j) {
      const int other = keys.of(j);
      const bool ahead = other == key ? j < i : key < 0 || (other >= 0 && other < key);
      place += ahead ? 1 : 0;
    }
    if (place < out.width) out.slot_row[token * out.width + place] = static_cast<int32_t>(row);
    if (row < 0) continue;
    out.row_token[row] = static_cast<int32_t>(token);
    if (out.row_slot != nullptr) out.row_slot[row] = static_cast<int32_t>(i);
  }
}

template <class Keys>
void sort(Device& device, std::string_view name, const Sorted& out, const Keys& keys, int64_t num_keys,
          int64_t num_tokens, const Tensor& scratch) {
  const bool count_any = out.rank_counts != nullptr;
  const int64_t num_counts = count_any ? 2 * num_keys : num_keys;
  const int64_t num_runs = gpu::sort_runs(num_tokens, keys.top_k), num_pairs = num_tokens * keys.top_k;
  const int64_t pairs_per_run = ceil_div(num_tokens, num_runs) * keys.top_k;
  auto* counts = static_cast<int32_t*>(scratch.raw());
  int32_t* totals = counts + num_counts * num_runs;
  const dim3 grid = blocks(ceil_div(num_runs, kWarps));
  const auto ints = [](int64_t count) { return static_cast<size_t>(count) * sizeof(int32_t); };
  launch(name, count_keys<Keys>, grid, kThreads, ints(kWarps * num_counts), device.stream(), counts, out.row_token,
         out.row_slot, out.num_rows, keys, num_keys, count_any, num_pairs, pairs_per_run, num_runs);
  launch(name, sum_runs, blocks(ceil_div(num_counts, kWarps)), kThreads, 0, device.stream(), counts, totals, num_counts,
         num_runs);
  launch(name, place_pairs<Keys>, grid, kThreads, ints((1 + kWarps) * num_keys), device.stream(), out, counts, totals,
         keys, num_keys, num_pairs, pairs_per_run, num_runs, device.fault());
}

__global__ void __launch_bounds__(kThreads)
    invert_index(int32_t* inverse, int64_t size, const int32_t* index, int64_t count, Fault* fault) {
  const int64_t m = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (m >= count || index[m] < 0) return;
  if (index[m] < size) {
    inverse[index[m]] = static_cast<int32_t>(m);
  } else {
    report(fault, FaultKind::index, index[m], size);
  }
}

}  // namespace

void CudaBackend::execute(const DispatchPlan& op, const Tensor& scratch) {
  const int64_t num_ranks = op.counts.dim(0);
  const Sorted out{.row_token = op.send_token.data<int32_t>(),
                   .row_slot = nullptr,
                   .slot_row = op.send_row.data<int32_t>(),
                   .offsets = nullptr,
                   .rank_counts = op.counts.data<int32_t>(),
                   .num_rows = op.send_token.dim(0),
                   .width = op.send_row.dim(1),
                   .row_align = 1};
  const ByRank keys{.experts = op.experts.data<int32_t>(),
                    .top_k = op.experts.dim(1),
                    .num_experts = op.num_experts,
                    .per_rank = op.num_experts / num_ranks,
                    .fault = device_.fault()};
  sort(device_, DispatchPlan::name, out, keys, num_ranks, op.experts.dim(0), scratch);
}

void CudaBackend::execute(const ExpertSort& op, const Tensor& scratch) {
  const int64_t num_experts = op.offsets.dim(0) - 1;
  const Sorted out{.row_token = op.row_token.data<int32_t>(),
                   .row_slot = op.row_slot.data<int32_t>(),
                   .slot_row = op.slot_row.data<int32_t>(),
                   .offsets = op.offsets.data<int32_t>(),
                   .rank_counts = nullptr,
                   .num_rows = op.row_token.dim(0),
                   .width = op.experts.dim(1),
                   .row_align = op.row_align};
  const ByLocalExpert keys{.experts = op.experts.data<int32_t>(),
                           .top_k = op.experts.dim(1),
                           .first = op.first,
                           .num_experts = num_experts,
                           .folded = op.folded};
  sort(device_, ExpertSort::name, out, keys, num_experts, op.experts.dim(0), scratch);
}

void CudaBackend::execute(const InvertIndex& op, const Tensor& /*scratch*/) {
  const int64_t count = op.index.dim(0);
  check(cudaMemsetAsync(op.inverse.raw(), 0xff, op.inverse.bytes(), device_.stream()), "emptying an inverse index");
  launch(InvertIndex::name, invert_index, blocks(ceil_div(count, kThreads)), kThreads, 0, device_.stream(),
         op.inverse.data<int32_t>(), op.inverse.dim(0), op.index.data<int32_t>(), count, device_.fault());
}

}  // namespace sluice::cuda
