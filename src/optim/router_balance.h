// The step of what loads change in routers, beside the optimizer's:
//   selection biases  b += rate sign(mean load - load)  [DeepSeek-V3]
//   shares            s = load / slots, for the balance loss of the next step
#pragma once

#include <vector>

#include "parallel/flat_group.h"

namespace sluice {

// Steps the groups that no gradient trains, by the reduced loads in their gradients: those of `tokens` tokens, the
// global batch. Their gathered copies are stale afterwards.
void balance_routers(Context& ctx, const std::vector<FlatGroup*>& groups, int64_t tokens, double rate);

}  // namespace sluice
