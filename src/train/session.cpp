#include "train/session.h"

#include "device/cpu/cpu_backend.h"

namespace sluice {

RankPlan plan_rank(const RunSpec& spec, int rank, const DeviceModel& device, const NetworkModel& network) {
  RankPlan plan;
  {
    MetaBackend backend(device);
    MetaMemory memory;
    MetaWorld world(network, spec.mesh.world);
    const auto communicator = world.communicator(rank);
    Trainer trainer(spec, {&backend, &memory, communicator.get()}, nullptr, nullptr);
    trainer.step(0);
    plan.sizes = trainer.runtime().arena_sizes();
  }
  MetaBackend backend(device);
  MetaMemory memory;
  MetaWorld world(network, spec.mesh.world);
  const auto communicator = world.communicator(rank);
  Trainer trainer(spec, {&backend, &memory, communicator.get()}, nullptr, &plan.sizes);
  const double begin = trainer.context().compute().now();
  trainer.step(0);
  plan.step_seconds = trainer.context().compute().now() - begin;
  plan.ledger = memory.ledger();
  return plan;
}

std::unique_ptr<Backend> make_backend(Device device, Pool& pool) {
  if (device == Device::ref) return std::make_unique<RefBackend>();
  return std::make_unique<CpuBackend>(pool);
}

void run_session(const RunSpec& spec, const SessionOptions& options, const Dataset& dataset,
                 const std::function<void(Trainer&)>& body) {
  Pool pool(options.threads);
  run_ranks(spec.mesh.world, options.comm, [&](Communicator& world) {
    const auto backend = make_backend(options.device, pool);
    const RankPlan plan = plan_rank(spec, world.rank(), {.target = backend->target()}, {});
    HostMemory memory;
    Trainer trainer(spec, {backend.get(), &memory, &world}, &dataset, &plan.sizes);
    body(trainer);
  });
}

}  // namespace sluice
