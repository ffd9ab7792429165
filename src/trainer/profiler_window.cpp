#include "trainer/profiler_window.h"

#include <algorithm>

#include "base/log.h"

namespace sluice {

ProfilerWindow::ProfilerWindow(Trainer& trainer, const config::Benchmark& keys)
    : backend_(trainer.context().backend()) {
  const int64_t first = keys.nsys_start.value_or(-1), last = keys.nsys_end.value_or(-1);
  if (first < 0) return;
  const Communicator& world = trainer.mesh().world;
  if (!backend_.starts_profilers()) {
    if (world.world_rank() == 0) {
      log::warn("benchmark.nsys_start, nsys_end and nsys_ranks have no effect on {}: nsys profiles GPUs",
                backend_.name());
    }
    return;
  }
  const int64_t steps = trainer.spec().steps;
  for (const auto& [key, step] : {std::pair{"nsys_start", first}, std::pair{"nsys_end", last}}) {
    if (step < steps) continue;
    throw user_error("benchmark.{} {} is not one of the {} steps of this run", key, step, steps)
        .advise("steps count from 0, warm-up included; the run has step_scheduler.max_steps");
  }
  for (const int64_t rank : keys.nsys_ranks) {
    if (rank < world.size()) continue;
    throw user_error("benchmark.nsys_ranks names rank {}, and this run has {}", rank, world.size())
        .advise("ranks count from 0");
  }
  if (std::ranges::find(keys.nsys_ranks, world.world_rank()) == keys.nsys_ranks.end()) return;
  first_ = first;
  last_ = last;
}

ProfilerWindow::~ProfilerWindow() {
  if (!recording_) return;
  try {
    backend_.record_profile(false);
  } catch (const std::exception& error) {
    log::warn("{}", error.what());
  }
}

void ProfilerWindow::before(int64_t step) {
  if (first_ < 0 || step != first_) return;
  backend_.synchronize();  // what came before is not to be seen
  backend_.record_profile(true);
  recording_ = true;
}

void ProfilerWindow::after(int64_t step) {
  if (!recording_ || step != last_) return;
  recording_ = false;
  backend_.record_profile(false);
}

}  // namespace sluice
