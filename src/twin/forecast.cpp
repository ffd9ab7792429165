#include "twin/forecast.h"

#include <algorithm>

#include "base/text.h"
#include "device/cuda/cuda.h"
#include "model/family.h"

namespace sluice {
namespace {

int ranks_of_host(const LaunchOptions& options, int world) {
  if (options.courier == nullptr) return world;
  int ranks = 0;
  for (const Member& member : options.courier->members()) {
    if (member.host == options.courier->self().host) ranks += member.ranks;
  }
  return ranks;
}

}  // namespace

RunForecast forecast_run(const RunSpec& spec, const LaunchOptions& options, const MachineInfo& machine) {
  const int here = ranks_of_host(options, spec.mesh.world);
  const int on_these_cores =
      options.courier == nullptr ? spec.mesh.world : options.courier->self().ranks * options.sharing;
  // That share what was measured.
  const double ranks = own_gpus(options, spec.mesh.world) ? 1 : on_these_cores;
  DeviceModel device;
  device.target = target_of(options.device, options.threads);
  device.roof = machine.roof(1 / ranks);
  device.op_overhead_s = 0;
  device.matrix_efficiency = 1;
  device.other_efficiency = 1;

  RunForecast forecast;
  forecast.roof = device.roof;
  forecast.flops_per_step =
      model_flops_per_sequence(spec.model, spec.seq_len) * static_cast<double>(spec.sampling.global_batch);
  // The ranks of a stage differ little; one stands for them.
  std::vector<int> column;
  for (int stage = 0; stage < spec.mesh.pp; ++stage) column.push_back(stage * spec.mesh.stage_ranks());
  for (const RankPlan& plan : plan_ranks(spec, column, device, {})) {
    forecast.total_bytes += plan.ledger.peak() * static_cast<uint64_t>(spec.mesh.stage_ranks());
    // While one stage waits the others have its share of the machine: their mean is what counts.
    for (const auto& [op, seconds] : plan.op_seconds) forecast.roofline_seconds += seconds / spec.mesh.pp;
  }
  const double share = static_cast<double>(here) / spec.mesh.world;
  forecast.host_bytes = static_cast<uint64_t>(share * static_cast<double>(forecast.total_bytes));
  return forecast;
}

void require_memory(const RunForecast& forecast, uint64_t available_bytes, const std::string& advice) {
  if (forecast.host_bytes <= available_bytes) return;
  throw user_error("this run needs {} of memory{} and {} can be had", format_bytes(forecast.host_bytes),
                   forecast.host_bytes == forecast.total_bytes ? "" : " on this host", format_bytes(available_bytes))
      .advise(advice + "; sluice plan FILE says where memory goes and what frees some");
}

MachineInfo measure_for(const RunSpec& spec, const LaunchOptions& options) {
  if (options.device != DeviceKind::cuda) return measure_machine(options.threads * options.sharing);
  if (spec.mesh.world > 1) cuda::load_kernels_first();
  return measure_gpu(spec.dtype);
}

uint64_t memory_for(const RunSpec& spec, const LaunchOptions& options) {
  if (options.device != DeviceKind::cuda) return available_memory();
  if (options.courier != nullptr) {
    // Those of this process stand for all of the host: others may not be seen from here.
    const launch::LocalRanks local = options.local();
    uint64_t own = 0;
    for (const int gpu : launch::choose_gpus(static_cast<int>(cuda::find_gpus().list.size()), local)) {
      own += cuda::free_memory(gpu);
    }
    return own * static_cast<uint64_t>(local.processes);
  }
  uint64_t bytes = 0;
  const int gpus = own_gpus(options, spec.mesh.world) ? spec.mesh.world : 1;
  for (int gpu = 0; gpu < gpus; ++gpu) bytes += cuda::free_memory(gpu);
  return bytes;
}

}  // namespace sluice
