#include "train/training.h"

#include <algorithm>
#include <deque>
#include <numeric>

#include "base/clock.h"
#include "base/text.h"
#include "train/evaluation.h"

namespace sluice {
namespace {

constexpr size_t recent_steps = 20;

// One rank's run; the first rank's results and events are the run's.
class RankTraining {
 public:
  RankTraining(Trainer& trainer, const TrainingJob& job, const TrainingEvents& events)
      : trainer_(trainer), job_(job), events_(events), first_(trainer.mesh().world.world_rank() == 0) {}

  TrainingResult run() {
    if (job_.weights != nullptr) job_.weights->load(trainer_);
    while (result_.steps < job_.steps && !result_.stopped) {
      one_step();
      result_.stopped = any_rank(first_ && events_.stop && events_.stop());
      const bool due = job_.validate_every && result_.steps % *job_.validate_every == 0;
      if (due && !result_.stopped && result_.steps < job_.steps) result_.stopped = !validate();
    }
    if (!result_.stopped) validate();
    if (first_ && events_.trained) events_.trained(trainer_);
    result_.recent_steps = std::ssize(recent_);
    result_.recent_loss =
        std::accumulate(recent_.begin(), recent_.end(), 0.0) / static_cast<double>(std::max<size_t>(1, recent_.size()));
    return result_;
  }

 private:
  void one_step() {
    const Stopwatch watch;
    const StepResult step = trainer_.step(result_.steps);
    const double seconds = watch.seconds();
    ++result_.steps;
    result_.tokens += trainer_.spec().tokens_per_step();
    result_.seconds += seconds;
    if (result_.steps == 1) result_.first_loss = step.loss;
    recent_.push_back(step.loss);
    if (recent_.size() > recent_steps) recent_.pop_front();
    record({.step = result_.steps,
            .result = step,
            .gradient_norm = trainer_.spec().gradient_norm ? std::optional(step.gradient_norm) : std::nullopt,
            .tokens = trainer_.spec().tokens_per_step(),
            .seconds = seconds,
            .tokens_per_s = static_cast<double>(trainer_.spec().tokens_per_step()) / seconds,
            .ranks = trainer_.spec().mesh.world});
  }

  // False: it was ended before its last batch, and has no result.
  bool validate() {
    if (job_.validation == nullptr) return true;
    EvaluationWatch watch;
    if (first_) watch.progress = events_.validating;
    if (events_.stop) watch.stop = [&] { return first_ && events_.stop(); };
    const Evaluated evaluated = trainer_.evaluate(*job_.validation, job_.validation_samples, watch);
    result_.validation_loss.reset();
    if (!evaluated.complete) return false;
    result_.validation_loss = evaluated.loss;
    record(
        {.step = result_.steps, .validation_loss = evaluated.loss, .validation_label_tokens = evaluated.label_tokens});
    return true;
  }

  // Adds what both kinds of records say. All ranks call it.
  void record(TrainRecord record) {
    const auto held = static_cast<int64_t>(trainer_.ledger().peak());
    record.memory_bytes = static_cast<uint64_t>(trainer_.max_over_world(held, "memory of the fullest rank"));
    const int64_t before = record.step - 1;
    record.epoch = before * trainer_.spec().sampling.global_batch / job_.dataset->size();
    record.learning_rate = trainer_.spec().lr.at(before);
    if (first_ && events_.recorded) events_.recorded(record);
  }

  // The ranks must end at the same step.
  bool any_rank(bool mine) { return trainer_.sum_over_world(mine ? 1 : 0, "whether to stop") > 0; }

  Trainer& trainer_;
  const TrainingJob& job_;
  const TrainingEvents& events_;
  bool first_;
  TrainingResult result_;
  std::deque<double> recent_;
};

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
  if (validation != nullptr) {
    job.validate_every = config.step_scheduler.val_every_steps;
    job.validation_samples = evaluation_samples(spec, *validation);
  }
  return job;
}

TrainingResult run_training(const TrainingJob& job, const RunSpec& spec, const SessionOptions& options,
                            const TrainingEvents& events) {
  TrainingResult result;
  run_session(spec, options, *job.dataset, [&](Trainer& trainer) {
    const TrainingResult mine = RankTraining(trainer, job, events).run();
    if (trainer.mesh().world.world_rank() == 0) result = mine;
  });
  return result;
}

}  // namespace sluice
