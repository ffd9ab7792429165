// Session: the ranks of a run train together, each in memory that was planned for it.
#pragma once

#include <functional>

#include "launch/launcher.h"
#include "twin/rank_plan.h"

namespace sluice {

// Runs `body` on every rank of the spec's mesh that this process has, each on a thread with its own trainer, whose
// memory is planned first. The first error of any rank ends all and is thrown. `dataset` must outlive the call.
// `planned` is told of each rank's plan before the rank starts, on its thread.
void run_session(const RunSpec& spec, const LaunchOptions& options, const Dataset& dataset,
                 const std::function<void(Trainer&)>& body, const std::function<void(const RankPlan&)>& planned = {});

}  // namespace sluice
