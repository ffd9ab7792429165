#include "train/session.h"

#include <algorithm>

#include "base/log.h"
#include "comm/cuda/cuda_mover.h"
#include "comm/nccl/nccl.h"
#include "device/cpu/cpu_backend.h"
#include "device/cuda/cuda.h"
#include "train/machine_info.h"

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

std::vector<RankPlan> plan_ranks(const RunSpec& spec, const std::vector<int>& ranks, const DeviceModel& device,
                                 const NetworkModel& network, const PlanWatch& watch) {
  MetaWorld world(network, spec.mesh.world, ranks.size() > 1 ? ranks : std::vector<int>{});
  std::map<int, RankPlan> plans;
  for (const int rank : ranks) plans[rank].rank = rank;
  const auto plan = [&](Communicator& communicator) {
    RankPlan& result = plans.at(communicator.rank());
    result.sizes = measure_arenas(spec, result.rank, device);
    MetaBackend backend(device);
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

RankPlan plan_rank(const RunSpec& spec, int rank, const DeviceModel& device, const NetworkModel& network) {
  return plan_ranks(spec, {rank}, device, network).front();
}

bool own_gpus(DeviceKind device, int ranks) {
  return device == DeviceKind::cuda && ranks > 1 && nccl::available() && std::ssize(cuda::find_gpus().list) >= ranks;
}

namespace {

Hardware gpus_for(int ranks) {
  const cuda::Gpus gpus = cuda::find_gpus();
  if (!gpus.why_none.empty()) throw no_gpu(gpus.why_none);
  if (own_gpus(DeviceKind::cuda, ranks)) {
    return {.backend = [](int rank) { return cuda::make_backend({.ordinal = rank}); },
            .memory = [](int rank) { return cuda::make_device_memory(rank); },
            .nccl = true};
  }
  if (gpus.list.size() > 1 && ranks > 1) {
    log::info("{} ranks share the first of {} GPUs: {}", ranks, gpus.list.size(),
              nccl::available() ? "there is not one for each" : "sluice was built without NCCL");
  }
  constexpr int kGpu = 0;
  return {.backend = [](int) { return cuda::make_backend({.ordinal = kGpu}); },
          .memory = [](int) { return cuda::make_device_memory(kGpu); },
          .mover = [](int) { return cuda::make_mover(kGpu); }};
}

}  // namespace

Hardware hardware_of(DeviceKind device, int threads, int ranks) {
  const auto host = [](int) { return std::make_unique<HostMemory>(); };
  switch (device) {
    case DeviceKind::ref:
      return {.backend = [](int) { return std::make_unique<RefBackend>(); }, .memory = host};
    case DeviceKind::cuda:
      return gpus_for(ranks);
    case DeviceKind::cpu:
      break;
    case DeviceKind::meta:
      require(false, "a session on meta");
  }
  const auto pool = std::make_shared<Pool>(threads);
  return {.backend = [pool](int) { return std::make_unique<CpuBackend>(*pool); }, .memory = host};
}

Target target_of(DeviceKind device, int threads) {
  if (device == DeviceKind::cuda) return {.row_align = cuda::CudaOptions{}.row_align, .platform = Platform::gpu};
  return {.row_align = 1, .workers = device == DeviceKind::ref ? 1 : threads};
}

void run_session(const RunSpec& spec, const SessionOptions& options, const Dataset& dataset,
                 const std::function<void(Trainer&)>& body) {
  const Hardware hardware =
      options.hardware.backend ? options.hardware : hardware_of(options.device, options.threads, spec.mesh.world);
  const auto rank_body = [&](Communicator& world) {
    const auto backend = hardware.backend(world.rank());
    backend->after_reads([&] { world.check_alive(); });
    const RankPlan plan = plan_rank(spec, world.rank(), {.target = backend->target()}, {});
    if (options.planned) options.planned(plan);
    const auto memory = hardware.memory(world.rank());
    Trainer trainer(spec, {backend.get(), memory.get(), &world}, &dataset, &plan.sizes);
    body(trainer);
    backend->synchronize();  // before memory that peers may read is given back
  };
  if (hardware.nccl) {
    nccl::run_ranks(spec.mesh.world, {.timeout_s = options.comm.timeout_s}, rank_body);
    return;
  }
  InprocOptions comm = options.comm;
  comm.mover = hardware.mover;
  run_ranks(spec.mesh.world, comm, rank_body);
}

}  // namespace sluice
