// The step of the routers' selection biases, beside the optimizer's:  b += rate sign(mean load - load)  [DeepSeek-V3]
#pragma once

#include <vector>

#include "parallel/flat_group.h"

namespace sluice {

// Steps the groups that no gradient trains, by the reduced loads in their gradients: those of `tokens` tokens, the
// global batch. Their gathered copies are stale afterwards.
void balance_routers(Context& ctx, const std::vector<FlatGroup*>& groups, int64_t tokens, double rate);

}  // namespace sluice
