#include "training/session.h"

namespace sluice {

void run_session(const RunSpec& spec, const LaunchOptions& options, const Dataset& dataset,
                 const std::function<void(Trainer&)>& body, const std::function<void(const RankPlan&)>& planned) {
  make_launcher(options, spec.mesh.world)->run(spec.mesh, [&](Rank& rank) {
    Rehearsal rehearsal;
    const RankPlan plan =
        plan_rank(spec, rank.world.rank(), {.target = rank.backend.target()}, {}, rank.own_gpu ? &rehearsal : nullptr);
    if (planned) planned(plan);
    rehearsal.run(rank.backend, rank.memory);
    Trainer trainer(spec, {&rank.backend, &rank.memory, &rank.world}, &dataset, &plan.sizes);
    body(trainer);
    rank.backend.synchronize();  // before memory that peers may read is given back
  });
}

}  // namespace sluice
