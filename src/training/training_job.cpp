// How long a run trains, validates and saves, as its configuration and its data say.
#include <algorithm>

#include "base/text.h"
#include "training/evaluation.h"
#include "training/training.h"

namespace sluice {
namespace {

// NeMo saves at the end of each epoch where its file does not say how often, of data without an end twice in a run.
SaveSchedule save_schedule(const Config& config, int64_t steps, int64_t samples, int64_t batch) {
  constexpr int64_t kEndless = int64_t{1} << 40, kShare = 10;
  const config::StepScheduler& keys = config.step_scheduler;
  const bool endless = samples > kEndless;
  const int64_t epoch = std::max<int64_t>(1, samples / batch);
  SaveSchedule schedule{.validate = keys.validate_on_checkpoint};
  if (keys.save_checkpoint_every_epoch && !endless) schedule.epoch = epoch;
  if (keys.ckpt_every_steps) {
    schedule.every = keys.ckpt_every_steps;
  } else if (config.program == config::Program::nemo) {
    schedule.every = endless ? std::max<int64_t>(1, steps / 2) : epoch;
  } else {
    schedule.every = std::max<int64_t>(1, steps / kShare);
  }
  return schedule;
}

}  // namespace

TrainingJob training_job(const Config& config, const RunSpec& spec, const Dataset& dataset, const Dataset* validation) {
  TrainingJob job{.dataset = &dataset, .validation = validation, .steps = spec.steps};
  const int64_t size = dataset.size(), batch = spec.sampling.global_batch;
  if (const std::optional<int64_t> epochs = config.step_scheduler.num_epochs) {
    // What so many passes over the data fill, in whole batches; one at least.
    constexpr int64_t kEndless = int64_t{1} << 62;
    const int64_t sequences = size > kEndless / *epochs ? kEndless : size * *epochs;
    if (sequences / batch < job.steps) {
      job.steps = std::max<int64_t>(1, sequences / batch);
      const std::string most = config.step_scheduler.max_steps
                                   ? fmt::format(", not the {} of max_steps", format_count(spec.steps))
                                   : std::string();
      job.ended_by = fmt::format("{} steps{}: num_epochs {} of {} sequences, {} a step", format_count(job.steps), most,
                                 *epochs, format_count(size), batch);
    } else if (!config.step_scheduler.max_steps) {
      throw user_error("step_scheduler.max_steps is not given, and {} has no end",
                       config.dataset.target == config::DatasetKind::mock ? "mock data" : "the data")
          .advise("set step_scheduler.max_steps, or dataset.num_samples");
    }
  }
  job.schedule = save_schedule(config, job.steps, size, batch);
  job.bad_steps = config.bad_steps;
  constexpr double kMinute = 60;
  if (const auto& minutes = config.step_scheduler.max_minutes) job.most_seconds = *minutes * kMinute;
  if (validation != nullptr) {
    job.validate_every = config.step_scheduler.val_every_steps;
    job.validation_samples = evaluation_samples(spec, *validation);
  }
  return job;
}

}  // namespace sluice
