// How many rows a gate sends to each rank of an expert group, where it is a function of token ids.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "device/pool.h"
#include "ops/gate.h"

namespace sluice {

// Counts by sequence, for groups of every size that divides the experts. A sequence is counted once, however many
// layers, pipeline stages, ranks and layouts ask for it. Threads may share it.
class GateCounts {
 public:
  GateCounts(const GateSpec& gate, int64_t seq_len);

  const GateSpec& gate() const { return gate_; }
  int64_t seq_len() const { return seq_len_; }
  // Adds those of sequence `sample` to `counts`: [ep, 2], the tokens with an expert on that rank, and their slots.
  void add(int64_t sample, int ep, std::vector<int32_t>& counts);
  // Counts sequences [0, samples) before they are asked for, with all threads of the pool; the calling one reports.
  void count_ahead(int64_t samples, Pool& pool, const std::function<void(int64_t done, int64_t all)>& progress);

 private:
  struct Sequence {
    std::once_flag counted;
    std::vector<int32_t> rows;  // [ep, 2] of each size of group, one after the other
  };
  struct Group {
    size_t first;                // of its values in Sequence::rows
    std::vector<int32_t> ranks;  // of each expert
  };

  std::vector<int32_t> count(int64_t sample) const;
  const std::vector<int32_t>& rows_of(int64_t sample);

  GateSpec gate_;
  int64_t seq_len_;
  std::map<int64_t, Group> groups_;  // by size, from 2 on
  size_t values_ = 0;                // of a sequence
  std::mutex mutex_;                 // of what follows, not of the sequences themselves
  std::unordered_map<int64_t, Sequence> sequences_;
};

}  // namespace sluice
