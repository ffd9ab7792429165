// A plan as a person reads it, and as JSON. The same plan gives the same bytes.
#pragma once

#include <string>

#include "plan/advice.h"

namespace sluice {

struct Advice {
  std::vector<WayOut> ways_out;  // when it does not fit
  std::optional<OtherLayout> next_best;
  std::optional<WayOut> faster;
};

// Plans what else there is: ways out where it does not fit, else other layouts and settings. `config` is what the plan
// was resolved from.
Advice advise(const Config& config, const Plan& plan, Pool& pool);

// At most `width` columns wide, 80 or more.
std::string render(const Plan& plan, const Advice& advice, size_t width);
// One JSON object.
std::string to_json(const Plan& plan, const Advice& advice);

}  // namespace sluice
