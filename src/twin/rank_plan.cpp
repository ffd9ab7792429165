#include "twin/rank_plan.h"

#include <algorithm>

#include "device/meta/meta_backend.h"

namespace sluice {

namespace {

// How many steps to look at for the sizes of buffers: all whose routing may differ from the first one's, as long as
// that takes a moment. What a later step needs beyond that is grown and reported.
int64_t steps_to_measure(const RunSpec& spec) {
  constexpr int64_t kMostSteps = 64;
  constexpr int64_t kMostTokens = int64_t{1} << 20;
  const GateSpec& gate = spec.gate;
  if (gate.num_experts == 0) return 1;
  const bool periodic =
      gate.kind == GateKind::published && gate.noise == 0 && spec.seq_len * gate.top_k % gate.num_experts == 0;
  if (spec.mesh.ep == 1 || spec.load_varies() || periodic) return 1;
  const int64_t tokens = spec.mesh.ep * spec.tokens_per_step() / spec.mesh.dp();
  return std::clamp<int64_t>(std::min(spec.steps + spec.further_steps, kMostTokens / tokens), 1, kMostSteps);
}

ArenaSizes measure_arenas(const RunSpec& spec, int rank, const DeviceModel& device) {
  MetaBackend backend(device);
  MetaMemory memory;
  MetaWorld world({}, spec.mesh.world);
  const auto communicator = world.communicator(rank);
  Trainer trainer(spec, {&backend, &memory, communicator.get()}, nullptr, nullptr);
  for (int64_t step = 0; step < steps_to_measure(spec); ++step) trainer.step(step);
  return trainer.runtime().arena_sizes();
}

}  // namespace

namespace {

std::vector<RankPlan> plan_all(const RunSpec& spec, const std::vector<int>& ranks, const DeviceModel& device,
                               const NetworkModel& network, const PlanWatch& watch, Rehearsal* rehearsal) {
  MetaWorld world(network, spec.mesh.world, ranks.size() > 1 ? ranks : std::vector<int>{});
  std::map<int, RankPlan> plans;
  for (const int rank : ranks) plans[rank].rank = rank;
  const auto plan = [&](Communicator& communicator) {
    RankPlan& result = plans.at(communicator.rank());
    result.sizes = measure_arenas(spec, result.rank, device);
    MetaBackend backend(device);
    backend.tell(rehearsal);
    MetaMemory memory;
    Trainer trainer(spec, {&backend, &memory, &communicator}, nullptr, &result.sizes);
    if (watch) watch(result.rank, trainer);
    // Ranks initialise different amounts; the step begins together.
    communicator.barrier(trainer.context().compute(), "start of the step");
    const double begin = trainer.context().compute().now();
    const auto before = backend.seconds_by_op();
    world.traffic(result.rank).reset();
    trainer.step(0);
    result.step_seconds = trainer.context().compute().now() - begin;
    for (const auto& [op, seconds] : backend.seconds_by_op()) {
      const auto earlier = before.find(op);
      result.op_seconds[op] = seconds - (earlier == before.end() ? 0 : earlier->second);
    }
    result.traffic = world.traffic(result.rank);
    result.ledger = memory.ledger();
  };
  if (ranks.size() > 1) {
    world.run(plan);
  } else {
    for (const int rank : ranks) plan(*world.communicator(rank));
  }
  std::vector<RankPlan> list;
  for (const int rank : ranks) list.push_back(std::move(plans.at(rank)));
  return list;
}

}  // namespace

std::vector<RankPlan> plan_ranks(const RunSpec& spec, const std::vector<int>& ranks, const DeviceModel& device,
                                 const NetworkModel& network, const PlanWatch& watch) {
  return plan_all(spec, ranks, device, network, watch, nullptr);
}

RankPlan plan_rank(const RunSpec& spec, int rank, const DeviceModel& device, const NetworkModel& network,
                   Rehearsal* rehearsal) {
  return plan_all(spec, {rank}, device, network, {}, rehearsal).front();
}

}  // namespace sluice
