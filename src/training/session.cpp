#include "training/session.h"

namespace sluice {

void run_session(const RunSpec& spec, const LaunchOptions& options, const Dataset& dataset,
                 const std::function<void(Trainer&)>& body, const std::function<void(const RankPlan&)>& planned) {
  make_launcher(options, spec.mesh.world)->run(spec.mesh, [&](Rank& rank) {
    const RankPlan plan = plan_rank(spec, rank.world.rank(), {.target = rank.backend.target()}, {});
    if (planned) planned(plan);
    Trainer trainer(spec, {&rank.backend, &rank.memory, &rank.world}, &dataset, &plan.sizes);
    body(trainer);
    rank.backend.synchronize();  // before memory that peers may read is given back
  });
}

}  // namespace sluice
