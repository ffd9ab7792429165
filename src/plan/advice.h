// What else one could do: ways to make a run fit, each planned anew, and the next best layout. `config` is what the
// plan was resolved from; each change is written as settings of it, all that are needed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "device/pool.h"
#include "plan/plan.h"

namespace sluice {

struct WayOut {
  std::string change;  // "memory.recompute: [norm, act]"
  size_t peak_bytes = 0;
  double freed_bytes = 0;  // compared with the plan
  double time_ratio = 1;   // seconds per token and rank, compared with the plan
  bool fits = false;
};

// Changes of one setting that need less memory: those that fit first, the fastest first; then those that do not, the
// most freed first. If none fits alone, the last one is all that help together, as far as needed.
std::vector<WayOut> ways_out(const Config& config, const Plan& plan, Pool& pool);

struct OtherLayout {
  std::string change;  // "distributed.pp_size: 8 + distributed.ep_size: 32"
  Plan plan;
  std::string because;  // "loses 0.41 s to the bubble"
};

// The fastest other layout of the same ranks that fits; none if no other does.
std::optional<OtherLayout> next_best_layout(const Config& config, const Plan& plan, Pool& pool);

// What is faster and fits too: less recomputation, if any.
std::optional<WayOut> faster_setting(const Config& config, const Plan& plan, Pool& pool);

// A configuration's recompute policy as it is written: "none", "full", "[norm, act]".
std::string describe(const RecomputePolicy& policy);

}  // namespace sluice
