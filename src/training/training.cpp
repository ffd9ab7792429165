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
#include "training/bad_steps.h"
#include "training/evaluation.h"
#include "training/resume.h"

namespace sluice {
namespace {

constexpr size_t kSummarySteps = 20;
constexpr const char* kRemedies =
    "lower optimizer.lr and go on from the last checkpoint; another clip_grad_norm.max_norm begins another run";

// One rank's run; the first rank's results and events are the run's.
class RankTraining {
 public:
  RankTraining(Trainer& trainer, const TrainingJob& job, const TrainingEvents& events, const LaunchOptions& options)
      : trainer_(trainer),
        job_(job),
        events_(events),
        first_(trainer.mesh().world.world_rank() == 0),
        first_here_(trainer.mesh().world.world_rank() == options.first_rank()),
        courier_(options.courier) {
    if (job.saving != nullptr) saver_ = std::make_unique<Saver>(trainer, *job.saving);
  }

  TrainingResult run() {
    begin();
    // A run that was ended between a step and its validation.
    if (job_.resumed != nullptr && validation_due() && !validated_here()) {
      result_.stopped = !validate();
      link_resumed_as_best();
    }
    while (state_.step < job_.steps && !result_.stopped) {
      if (!one_step()) continue;
      look_around();
      if (result_.stopped || state_.step >= job_.steps) break;
      const bool save_now = saver_ && job_.schedule.due(state_.step);
      if (validation_due() || (save_now && job_.schedule.validate)) result_.stopped = !validate();
      if (save_now && !result_.stopped) save(/*final=*/false);
    }
    if (!result_.stopped && !validated_here()) validate();
    if (saver_) save(/*final=*/true);
    result_.saved = !saver_ || saver_->saved();
    const TrainingResult result = summary();
    if (events_.trained) events_.trained(trainer_, result);
    if (saver_) saver_->require_saved();
    return result;
  }

 private:
  void begin() {
    if (job_.resumed != nullptr) {
      restore(*job_.resumed);
      restore_rollbacks();
      if (first_ && job_.saving != nullptr) clean_up();
    } else {
      if (job_.weights != nullptr) job_.weights->load(trainer_);
      if (first_ && job_.saving != nullptr) forget_rollback(job_.saving->path());
    }
    take_horizon();
    if (validated_here()) result_.validation_loss = state_.validation_loss;
    if (first_ && events_.begun) events_.begun(state_);
    const bool rolls_back =
        job_.bad_steps.non_finite == config::NonFinite::roll_back || job_.bad_steps.spike == config::Spike::roll_back;
    // There must be one to go back to.
    if (saver_ && rolls_back && job_.resumed == nullptr) save(/*final=*/false);
  }

  void take_horizon() {
    const Horizon& horizon = trainer_.spec().horizon;
    state_.schedule_steps = horizon.steps.value_or(0);
    state_.decay_steps = horizon.decay;
    state_.weight_decay_steps = horizon.weight_decay;
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
    // All ranks have read it: when it is removed its room on the disk is to be free.
    if (first_here_) checkpoint.close();
    state_ = checkpoint.manifest().run;
    // A count ends where something has been done about what it counts.
    if (job_.saving != nullptr && !same_remedies(checkpoint.manifest(), job_.saving->manifest)) {
      state_.left_out_in_a_row = 0;
    }
  }

  // False: the run has gone back, and is at an earlier step.
  bool one_step() {
    const RangeScope range(trainer_.context().ranges(), [&] { return fmt::format("step {}", state_.step + 1); });
    const Stopwatch watch;
    const double in_calls = trainer_.mesh().world.seconds_in_calls();
    pass_over();
    const int64_t batch = trainer_.spec().sampling.global_batch;
    const StepPosition at{.step = state_.step, .update = state_.updates, .batch = state_.consumed_samples / batch};
    const StepResult step = trainer_.compute_gradients(at);
    until_update_ = watch.seconds();
    learning_rate_ = step.learning_rate;
    const Verdict verdict = judge(step);
    if (verdict == Verdict::end) {
      if (saver_) saver_->finish();
      trainer_.explain_non_finite(at, step);
    }
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
    const std::optional<RankTimes> times =
        compare_ranks(seconds - (trainer_.mesh().world.seconds_in_calls() - in_calls));
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
            .ranks = trainer_.spec().mesh.world,
            .times = times});
    return true;
  }

  // Of the seconds that each rank has computed in a step; none where that is not known, or there is one rank. All ranks
  // call it. Says who keeps the others waiting.
  std::optional<RankTimes> compare_ranks(double seconds) {
    const int64_t ranks = trainer_.spec().mesh.world, rank = trainer_.mesh().world.world_rank();
    if (ranks == 1 || !trainer_.host_visible()) return {};
    // The rank stands behind its time.
    constexpr int64_t kMostRanks = int64_t{1} << 20;
    constexpr double kMicro = 1e-6;
    const auto microseconds = static_cast<int64_t>(std::max(0.0, seconds) / kMicro);
    const auto [slowest] =
        trainer_.max_over_world(std::array{microseconds * kMostRanks + rank}, "time of the slowest rank");
    const int64_t all = trainer_.sum_over_world(microseconds, "time of all ranks");
    const int64_t most = slowest / kMostRanks;
    const RankTimes times{.slowest = static_cast<int>(slowest % kMostRanks),
                          .most = kMicro * static_cast<double>(most),
                          .mean_others = kMicro * static_cast<double>(all - most) / static_cast<double>(ranks - 1)};
    if (!first_ || courier_ == nullptr) return times;
    if (const std::optional<int> straggler = stragglers_.add(times)) {
      log::warn(
          "rank {} on host {} has kept the others waiting for {} steps; in this one it computes for {}, they for {}",
          *straggler, courier_->host_of(*straggler), kOften, format_duration(times.most),
          format_duration(times.mean_others));
    }
    return times;
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
    const Judgement judged = judge_step(job_.bad_steps, step, state_.recent_losses);
    if (judged.verdict == Verdict::end) return judged.verdict;
    if (judged.verdict == Verdict::good) {
      state_.left_out_in_a_row = 0;
    } else if (first_) {
      log::warn("step {}: {}; {}", state_.step + 1, judged.what,
                judged.verdict == Verdict::leave_out
                    ? "the step is left out: weights and moments stay as they are"
                    : "the run goes back to its last checkpoint, and passes over the batch");
    }
    if (judged.verdict == Verdict::leave_out && ++state_.left_out_in_a_row > kMostLeftOut) {
      if (saver_) saver_->finish();
      throw runtime_failure("step {}: {}; {} steps in a row are left out now", state_.step + 1, judged.what,
                            kMostLeftOut)
          .advise(kRemedies);
    }
    return judged.verdict;
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
    const int64_t to = saved ? *saved : job_.resumed->manifest().run.step;
    rollbacks_ = to == rolled_back_to_ ? rollbacks_ + 1 : 1;
    rolled_back_to_ = to;
    if (rollbacks_ > kMostRollbacks) {
      throw runtime_failure("step {}: the run has gone back to the same checkpoint {} times", state_.step + 1,
                            kMostRollbacks)
          .advise(kRemedies);
    }
    std::vector<int64_t> passed_over = state_.passed_over;
    for (const int64_t each : met_) passed_over.push_back(each);
    passed_over.push_back(state_.consumed_samples);
    met_.push_back(state_.consumed_samples);
    if (saved) {
      restore(Checkpoint(job_.saving->of_step(*saved)));
    } else {
      restore(*job_.resumed);
    }
    for (const int64_t each : passed_over) {
      const bool known = std::ranges::find(state_.passed_over, each) != state_.passed_over.end();
      if (!known && each >= state_.consumed_samples) state_.passed_over.push_back(each);
    }
    std::ranges::sort(state_.passed_over);
    state_.rollbacks = rollbacks_;
    take_horizon();
    if (first_) remember_rollback();
    if (first_ && events_.rolled_back) events_.rolled_back(state_.step);
  }

  // Whoever saved the checkpoint that the run goes on from may have been killed before that. It is read by now, with
  // its hashes.
  void clean_up() const {
    try {
      job_.saving->folder->clean(job_.saving->retention);
    } catch (const Error& error) {
      log::warn("{}", error.what());
    }
  }

  // For a run that is killed before its next checkpoint.
  void remember_rollback() const {
    try {
      Manifest run = job_.saving->manifest;
      run.run = state_;
      keep_rollback(job_.saving->path(), run);
    } catch (const Error& error) {
      log::warn("{}; if the run is ended before its next checkpoint, it meets the same batches again", error.what());
    }
  }

  // What the run did after the checkpoint that it goes on from, if it went back to that.
  void restore_rollbacks() {
    if (job_.saving == nullptr) return;
    const Manifest& now = job_.saving->manifest;
    const std::optional<Manifest> kept = kept_rollback(job_.saving->path(), state_.step);
    if (!kept || !resume_conflicts(*kept, now).empty()) return;
    state_.passed_over = kept->run.passed_over;
    if (!same_remedies(*kept, now)) return;
    rolled_back_to_ = state_.step;
    rollbacks_ = state_.rollbacks = kept->run.rollbacks;
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
    if (!first_here_) return false;
    if (first_ && job_.most_seconds && elapsed_.seconds() >= *job_.most_seconds) result_.out_of_time = true;
    return result_.out_of_time || (events_.stop && events_.stop());
  }

  bool validation_due() const {
    return state_.step > 0 && job_.validate_every && state_.step % *job_.validate_every == 0;
  }
  bool validated_here() const { return state_.validated_at == state_.step; }

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
    state_.validated_at = state_.step;
    record({.step = state_.step, .validation_loss = evaluated.loss, .validation_label_tokens = evaluated.label_tokens});
    return true;
  }

  // Whether the step has the lowest loss of validation so far.
  bool note_best() {
    const std::optional<double> loss = validated_here() ? state_.validation_loss : std::nullopt;
    const bool lowest = loss && std::isfinite(*loss) && (!state_.best || *loss < state_.best->loss);
    if (lowest) state_.best = BestLoss{*loss, state_.step};
    return lowest;
  }

  // The checkpoint that the run goes on from was saved before its step was validated.
  void link_resumed_as_best() {
    if (!note_best() || !first_ || job_.saving == nullptr) return;
    try {
      job_.saving->folder->link_resumed({state_.step, job_.resumed->path()}, /*lowest=*/true);
    } catch (const Error& error) {
      log::warn("{}", error.what());
    }
  }

  void save(bool final) {
    if (saver_->last_step() == state_.step) return saver_->finish();
    if (job_.resumed != nullptr && job_.resumed->manifest().run.step == state_.step) return;
    note_best();
    RunState saved = state_;
    saved.rollbacks = 0;  // to a checkpoint that is a new one
    saver_->begin(saved, until_update_, final);
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
    const auto [most] = trainer_.max_over_world(std::array{held}, "memory of the fullest rank");
    record.memory_bytes = static_cast<uint64_t>(most);
    const int64_t batch = trainer_.spec().sampling.global_batch;
    record.epoch = std::max<int64_t>(0, state_.consumed_samples - batch) / job_.dataset->size();
    record.learning_rate = learning_rate_;
    if (first_ && events_.recorded) events_.recorded(record);
  }

  Trainer& trainer_;
  const TrainingJob& job_;
  const TrainingEvents& events_;
  bool first_;
  bool first_here_;         // of this process: it hears what the process is asked
  const Courier* courier_;  // null: there is one process
  StragglerWatch stragglers_;
  std::unique_ptr<Saver> saver_;
  RunState state_;
  TrainingResult result_;
  Stopwatch elapsed_;
  double learning_rate_ = 0;
  double until_update_ = 0;   // seconds of a step before weights change
  std::vector<int64_t> met_;  // bad batches that the run has gone back from
  std::optional<int64_t> rolled_back_to_;
  int64_t rollbacks_ = 0;  // to that checkpoint
};

}  // namespace

TrainingResult run_training(const TrainingJob& job, const RunSpec& spec, const LaunchOptions& options,
                            const TrainingEvents& events) {
  TrainingResult result;
  run_session(spec, options, *job.dataset, [&](Trainer& trainer) {
    const TrainingResult mine = RankTraining(trainer, job, events, options).run();
    if (trainer.mesh().world.world_rank() == options.first_rank()) result = mine;
  });
  return result;
}

}  // namespace sluice
