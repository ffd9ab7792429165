// The columns of the table that say how a run was laid out.
#pragma once

#include <cstdint>

#include "trainer/run_spec.h"

namespace sluice {

struct Layout {
  int64_t ranks = 1;
  int64_t gbs = 1;  // sequences per optimizer step over all ranks
  int64_t mbs = 1;  // sequences in one forward pass
  int64_t lbs = 1;  // sequences per data-parallel rank per local batch
  int64_t ga = 1;   // gbs / (lbs dp)
  int64_t seq_len = 0;
  int64_t tp = 1;
  int64_t pp = 1;
  int64_t cp = 1;
  int64_t ep = 1;
  int64_t vp = 0;    // stages per rank; 0 without a pipeline
  int64_t fsdp = 1;  // ranks that shard a dense parameter
};

Layout layout_of(const RunSpec& spec);

}  // namespace sluice
