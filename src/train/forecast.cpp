#include "train/forecast.h"

#include <algorithm>

#include "base/text.h"
#include "model/family.h"

namespace sluice {

RunForecast forecast_run(const RunSpec& spec, const SessionOptions& options, const MachineInfo& machine) {
  const double ranks = spec.mesh.world;
  DeviceModel device;
  device.target = {.row_align = 1, .workers = options.threads};
  device.peak_flops = machine.peak_gflops * 1e9 / ranks;
  device.bandwidth = machine.bandwidth_gbs * 1e9 / ranks;
  device.op_overhead_s = 0;
  device.matrix_efficiency = 1;
  device.other_efficiency = 1;

  RunForecast forecast;
  forecast.roof = {.flops = device.peak_flops, .bandwidth = device.bandwidth};
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
  return forecast;
}

void require_memory(const RunForecast& forecast, uint64_t available_bytes) {
  if (forecast.total_bytes <= available_bytes) return;
  throw user_error("this run needs {} of memory and {} can be had", format_bytes(forecast.total_bytes),
                   format_bytes(available_bytes))
      .advise(
          "run it at --scale laptop, with a smaller step_scheduler.local_batch_size, or with "
          "--memory.recompute full");
}

SessionOptions session_options(const Config& config) {
  if (config.runtime.device == config::DeviceKind::meta) {
    throw user_error("runtime.device meta computes nothing")
        .at(config.origin("runtime.device").place())
        .advise("sluice plan runs a configuration on it");
  }
  SessionOptions options;
  options.device = config.runtime.device == config::DeviceKind::ref ? Device::ref : Device::cpu;
  options.threads = static_cast<int>(config.runtime.threads.value_or(usable_cores()));
  options.comm = {.timeout_s = config.watchdog_seconds(), .async = config.runtime.async_comm};
  return options;
}

}  // namespace sluice
