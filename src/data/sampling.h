// Which samples a rank sees: a pure function of the step, never of who asks. The micro-batches of all data-parallel
// ranks form one order, m * dp + d, so a run on one rank with dp times the micro-batches sees the same ones in it.
#pragma once

#include <cstdint>
#include <vector>

namespace sluice {

struct Sampling {
  std::int64_t global_batch = 1;  // sequences in one optimizer step over all ranks (GBS)
  std::int64_t micro_batch = 1;   // sequences in one forward pass (MBS)
  std::int64_t dp = 1;            // data-parallel ranks

  // Throws a user error unless dp * micro_batch divides global_batch.
  void check() const;
  // Micro-batches of each rank in one step.
  std::int64_t micro_batches() const { return global_batch / (micro_batch * dp); }

  // Sequence i of the rank's micro-batch m: step * global_batch + (m * dp + dp_rank) * micro_batch + i.
  std::int64_t sample_id(std::int64_t step, std::int64_t m, std::int64_t dp_rank, std::int64_t i) const {
    return step * global_batch + (m * dp + dp_rank) * micro_batch + i;
  }
  // All of one micro-batch.
  std::vector<std::int64_t> sample_ids(std::int64_t step, std::int64_t m, std::int64_t dp_rank) const;
};

}  // namespace sluice
