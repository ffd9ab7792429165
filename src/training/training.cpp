#include "training/training.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "training/evaluation.h"

namespace sluice {
namespace {

constexpr size_t kSummarySteps = 20;

// One rank's run; the first rank's results and events are the run's.
class RankTraining {
 public:
  RankTraining(Trainer& trainer, const TrainingJob& job, const TrainingEvents& events)
      : trainer_(trainer), job_(job), events_(events), first_(trainer.mesh().world.world_rank() == 0) {
    if (job.saving != nullptr) saver_ = std::make_unique<Saver>(trainer, *job.saving);
  }

  TrainingResult run() {
    begin();
    while (state_.step < job_.steps && !result_.stopped) {
      if (!one_step()) continue;
      look_around();
      if (result_.stopped || state_.step >= job_.steps) break;
      const bool save_now = saver_ && job_.schedule.due(state_.step);
      const bool validate_now = job_.validate_every && state_.step % *job_.validate_every == 0;
      if (validate_now || (save_now && job_.schedule.validate)) result_.stopped = !validate();
      if (save_now && !result_.stopped) save(/*final=*/false);
    }
    if (!result_.stopped) validate();
    if (saver_) save(/*final=*/true);
    result_.saved = !saver_ || saver_->saved();
    const TrainingResult result = summary();
    if (events_.trained) events_.trained(trainer_, result);
    if (saver_) saver_->require_saved();
    return result;
  }

 private:
  enum class Verdict : uint8_t { good, leave_out, roll_back, end };

  void begin() {
    if (job_.resumed != nullptr) {
      restore(*job_.resumed);
    } else if (job_.weights != nullptr) {
      job_.weights->load(trainer_);
    }
    state_.schedule_steps = trainer_.spec().schedule_steps;
    if (first_ && events_.begun) events_.begun(state_);
    const bool rolls_back =
        job_.bad_steps.non_finite == config::NonFinite::roll_back || job_.bad_steps.spike == config::Spike::roll_back;
    // There must be one to go back to.
    if (saver_ && rolls_back && job_.resumed == nullptr) save(/*final=*/false);
  }

  void restore(const Checkpoint& checkpoint) {
    const std::string path = checkpoint.path().string();
    ProgressTimer timer;
    trainer_.load(checkpoint, [&](uint64_t done, uint64_t all) {
      if (first_ && timer.due()) log::info("loading {}: {} %", path, 100 * done / std::max<uint64_t>(all, 1));
    });
    trainer_.mesh().world.barrier(trainer_.context().compute(), "checkpoint loaded");
    if (first_)
      log::info("loaded {} ({}) in {}", path, format_bytes(checkpoint.bytes()), format_duration(timer.seconds()));
    state_ = checkpoint.manifest().run;
  }

  // False: the run has gone back, and is at an earlier step.
  bool one_step() {
    const RangeScope range(trainer_.context().ranges(), [&] { return fmt::format("step {}", state_.step + 1); });
    const Stopwatch watch;
    pass_over();
    const int64_t batch = trainer_.spec().sampling.global_batch;
    const StepPosition at{.step = state_.step, .update = state_.updates, .batch = state_.consumed_samples / batch};
    const StepResult step = trainer_.compute_gradients(at);
    until_update_ = watch.seconds();
    learning_rate_ = step.learning_rate;
    const Verdict verdict = judge(step);
    if (verdict == Verdict::end) trainer_.explain_non_finite(at, step);
    if (verdict == Verdict::roll_back) {
      roll_back();
      return false;
    }
    if (verdict == Verdict::good) {
      if (saver_) saver_->release();
      trainer_.update_weights();
      ++state_.updates;
    }
    ++state_.step;
    state_.consumed_samples += batch;
    const double seconds = watch.seconds();
    ++result_.own_steps;
    result_.tokens += trainer_.spec().tokens_per_step();
    result_.seconds += seconds;
    if (verdict == Verdict::good) {
      if (state_.updates == 1) state_.first_loss = step.loss;
      remember(step.loss);
    }
    record({.step = state_.step,
            .result = step,
            .gradient_norm = trainer_.spec().gradient_norm ? std::optional(step.gradient_norm) : std::nullopt,
            .left_out = verdict == Verdict::leave_out,
            .tokens = trainer_.spec().tokens_per_step(),
            .seconds = seconds,
            .tokens_per_s = static_cast<double>(trainer_.spec().tokens_per_step()) / seconds,
            .ranks = trainer_.spec().mesh.world});
    return true;
  }

  // Batches that are not trained on.
  void pass_over() {
    std::vector<int64_t>& batches = state_.passed_over;
    while (true) {
      const auto found = std::ranges::find(batches, state_.consumed_samples);
      if (found == batches.end()) return;
      batches.erase(found);
      state_.consumed_samples += trainer_.spec().sampling.global_batch;
    }
  }

  void remember(double loss) {
    std::vector<double>& losses = state_.recent_losses;
    losses.push_back(loss);
    const size_t most = std::max(kSummarySteps, static_cast<size_t>(job_.bad_steps.spike_window));
    if (losses.size() > most) losses.erase(losses.begin(), losses.end() - static_cast<std::ptrdiff_t>(most));
  }

  // The result is the same on all ranks, and so is the verdict.
  Verdict judge(const StepResult& step) {
    Verdict verdict = Verdict::good;
    std::string what;
    if (!Trainer::finite(step)) {
      switch (job_.bad_steps.non_finite) {
        case config::NonFinite::stop:
          return Verdict::end;
        case config::NonFinite::skip:
          verdict = Verdict::leave_out;
          break;
        case config::NonFinite::roll_back:
          verdict = Verdict::roll_back;
          break;
      }
      what = fmt::format("loss {}, gradient norm {}: not finite (bad_steps.non_finite)", step.loss, step.gradient_norm);
    } else if (const std::string spike = spike_of(step.loss); !spike.empty()) {
      verdict = job_.bad_steps.spike == config::Spike::skip ? Verdict::leave_out : Verdict::roll_back;
      what = spike;
    }
    if (verdict == Verdict::good) {
      left_out_in_a_row_ = 0;
    } else if (first_) {
      log::warn("step {}: {}; {}", state_.step + 1, what,
                verdict == Verdict::leave_out ? "the step is left out: weights and moments stay as they are"
                                              : "the run goes back to its last checkpoint, and passes over the batch");
    }
    constexpr int kMost = 20;
    if (verdict == Verdict::leave_out && ++left_out_in_a_row_ > kMost) {
      throw runtime_failure("step {}: {}; {} steps in a row are left out now", state_.step + 1, what, kMost)
          .advise("lower optimizer.lr, or set clip_grad_norm.max_norm");
    }
    return verdict;
  }

  // What makes the loss a spike; empty where it is none.
  std::string spike_of(double loss) const {
    const config::BadSteps& rule = job_.bad_steps;
    const auto window = static_cast<size_t>(rule.spike_window);
    if (rule.spike == config::Spike::off || state_.recent_losses.size() < window) return {};
    const std::span<const double> last(state_.recent_losses.end() - rule.spike_window, window);
    const auto count = static_cast<double>(window);
    const double mean = std::accumulate(last.begin(), last.end(), 0.0) / count;
    double squares = 0;
    for (const double each : last) squares += (each - mean) * (each - mean);
    const double deviation = std::sqrt(squares / count);
    if (!(loss > mean + rule.spike_deviations * deviation)) return {};
    return fmt::format(
        "loss {:.4f} is {:.1f} standard deviations ({:.4f}) above {:.4f}, the mean of {} steps "
        "(bad_steps.spike)",
        loss, (loss - mean) / deviation, deviation, mean, window);
  }

  void roll_back() {
    if (!saver_) {
      throw runtime_failure("step {}: there is no checkpoint to go back to", state_.step + 1)
          .advise("set checkpoint.enabled: true");
    }
    saver_->finish();
    const std::optional<int64_t> saved = saver_->last_step();
    if (!saved && job_.resumed == nullptr) {
      throw runtime_failure("step {}: no checkpoint of this run is complete, there is none to go back to",
                            state_.step + 1);
    }
    constexpr int kMost = 10;
    if (saved != rolled_back_to_) rollbacks_ = 0;
    rolled_back_to_ = saved;
    if (++rollbacks_ > kMost) {
      throw runtime_failure("step {}: the run has gone back to the same checkpoint {} times", state_.step + 1, kMost)
          .advise("lower optimizer.lr, or set clip_grad_norm.max_norm");
    }
    std::vector<int64_t> passed_over = state_.passed_over;
    for (const int64_t each : met_) passed_over.push_back(each);
    passed_over.push_back(state_.consumed_samples);
    met_.push_back(state_.consumed_samples);
    if (saved) {
      restore(Checkpoint(job_.saving->folder->of_step(*saved)));
    } else {
      restore(*job_.resumed);
    }
    for (const int64_t each : passed_over) {
      const bool known = std::ranges::find(state_.passed_over, each) != state_.passed_over.end();
      if (!known && each >= state_.consumed_samples) state_.passed_over.push_back(each);
    }
    std::ranges::sort(state_.passed_over);
    state_.schedule_steps = trainer_.spec().schedule_steps;
    if (first_ && events_.rolled_back) events_.rolled_back(state_.step);
  }

  // What other threads and ranks have to say after a step: the run's end, and that of a save.
  void look_around() {
    const Saver::Votes save = saver_ ? saver_->votes() : Saver::Votes{};
    const auto [stop, ended, failed] = trainer_.sum_over_world(
        std::array<int64_t, 3>{wants_to_stop() ? 1 : 0, save.ended, save.failed}, "what is next");
    result_.stopped = stop > 0;
    if (saver_) saver_->settle({.ended = ended, .failed = failed});
  }

  bool wants_to_stop() {
    if (!first_) return false;
    if (job_.most_seconds && elapsed_.seconds() >= *job_.most_seconds) result_.out_of_time = true;
    return result_.out_of_time || (events_.stop && events_.stop());
  }

  // False: it was ended before its last batch, and has no result.
  bool validate() {
    if (job_.validation == nullptr) return true;
    EvaluationWatch watch;
    if (first_) watch.progress = events_.validating;
    if (events_.stop || job_.most_seconds) watch.stop = [&] { return wants_to_stop(); };
    const Evaluated evaluated = trainer_.evaluate(*job_.validation, job_.validation_samples, watch);
    result_.validation_loss.reset();
    if (!evaluated.complete) return false;
    result_.validation_loss = evaluated.loss;
    state_.validation_loss = evaluated.loss;
    validated_at_ = state_.step;
    record({.step = state_.step, .validation_loss = evaluated.loss, .validation_label_tokens = evaluated.label_tokens});
    return true;
  }

  void save(bool final) {
    if (saver_->last_step() == state_.step) return saver_->finish();
    if (job_.resumed != nullptr && job_.resumed->manifest().run.step == state_.step) return;
    const std::optional<double> loss = validated_at_ == state_.step ? state_.validation_loss : std::nullopt;
    if (loss && (!state_.best || *loss < state_.best->loss)) state_.best = BestLoss{*loss, state_.step};
    saver_->begin(state_, until_update_, final);
    if (final) saver_->finish();
  }

  TrainingResult summary() {
    const size_t count = std::min(state_.recent_losses.size(), kSummarySteps);
    const std::span<const double> last(state_.recent_losses.end() - static_cast<std::ptrdiff_t>(count), count);
    result_.steps = state_.step;
    result_.first_loss = state_.first_loss;
    result_.recent_steps = static_cast<int64_t>(count);
    result_.recent_loss =
        std::accumulate(last.begin(), last.end(), 0.0) / static_cast<double>(std::max<size_t>(1, count));
    return result_;
  }

  // Adds what both kinds of records say. All ranks call it.
  void record(TrainRecord record) {
    const auto held = static_cast<int64_t>(trainer_.ledger().peak());
    record.memory_bytes = static_cast<uint64_t>(trainer_.max_over_world(held, "memory of the fullest rank"));
    const int64_t batch = trainer_.spec().sampling.global_batch;
    record.epoch = std::max<int64_t>(0, state_.consumed_samples - batch) / job_.dataset->size();
    record.learning_rate = learning_rate_;
    if (first_ && events_.recorded) events_.recorded(record);
  }

  Trainer& trainer_;
  const TrainingJob& job_;
  const TrainingEvents& events_;
  bool first_;
  std::unique_ptr<Saver> saver_;
  RunState state_;
  TrainingResult result_;
  Stopwatch elapsed_;
  double learning_rate_ = 0;
  double until_update_ = 0;  // seconds of a step before weights change
  std::optional<int64_t> validated_at_;
  int left_out_in_a_row_ = 0;
  std::vector<int64_t> met_;  // bad batches that the run has gone back from
  std::optional<int64_t> rolled_back_to_;
  int rollbacks_ = 0;
};

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

TrainingResult run_training(const TrainingJob& job, const RunSpec& spec, const LaunchOptions& options,
                            const TrainingEvents& events) {
  TrainingResult result;
  run_session(spec, options, *job.dataset, [&](Trainer& trainer) {
    const TrainingResult mine = RankTraining(trainer, job, events).run();
    if (trainer.mesh().world.world_rank() == 0) result = mine;
  });
  return result;
}

}  // namespace sluice
