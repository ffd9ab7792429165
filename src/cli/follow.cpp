#include "cli/follow.h"

#include <csignal>
#include <optional>

#include "base/log.h"
#include "cli/interrupt.h"
#include "training/resume.h"

namespace sluice::cli {

std::vector<int> listened_to(const Config& config) {
  std::vector<int> signals = {SIGUSR1};
  for (const config::Signal signal : config.step_scheduler.preemption_signal) {
    if (signal == config::Signal::usr2) signals.push_back(SIGUSR2);
  }
  return signals;
}

int follow(const RunSpec& resolved, TrainingJob job, const LaunchOptions& session, const Config& config,
           const Manifest& run, bool exports, const JobProcesses& processes) {
  const std::string place = processes.from_first("");
  const std::string from = processes.from_first("");
  SaveOptions saving{.directory = place,
                     .in_background = config.checkpoint.is_async,
                     .go_on = config.checkpoint.on_failure == config::SaveFailure::go_on,
                     .manifest = run};
  std::optional<Checkpoint> resumed;
  if (!place.empty()) job.saving = &saving;
  if (!from.empty()) {
    resumed.emplace(from);
    job.resumed = &*resumed;
    saving.resumed = resumed->manifest().run.step;
    if (*saving.resumed >= job.steps && !exports) return 0;
  }
  const RunSpec spec =
      with_steps(resolved, config, job.steps, resumed ? horizon_of(resumed->manifest().run) : Horizon{});
  const Interrupt interrupt({.asked = [] { return std::string("ending after this step"); }},
                            place.empty() ? std::vector<int>{} : listened_to(config));
  // What goes wrong with a rank of this process is known here alone.
  log::set_level(log::Level::warn);
  TrainingEvents events;
  events.stop = [&] { return interrupt.requested(); };
  const TrainingResult result = run_training(job, spec, session, events);
  constexpr int kBySignal = 128;
  return interrupt.requested() && result.stopped ? kBySignal + interrupt.signal() : 0;
}

}  // namespace sluice::cli
