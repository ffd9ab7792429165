#include "cli/train.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <new>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/model_notes.h"
#include "cli/outputs.h"
#include "cli/terminal.h"
#include "cli/trained_export.h"
#include "train/make_dataset.h"
#include "train/progress.h"
#include "train/scale_config.h"
#include "train/training.h"
#include "train/yardstick.h"

namespace sluice::cli {
namespace {

// What of a configuration this command cannot do.
void check_settings(const Config& config) {
  for (const auto& [key, left_out] : {std::pair{"benchmark.local_shard", config.benchmark.local_shard > 1},
                                      {"benchmark.optimizer", !config.benchmark.optimizer}}) {
    if (!left_out) continue;
    throw user_error("{}: what is left then does not train", key)
        .at(config.origin(key).place())
        .advise("sluice bench times it; leave the key out to train");
  }
  const bool no_validation = config.validation_dataset.target == config::DatasetKind::none;
  // NeMo's files say it beside no data too.
  const bool of_nemos_file = config.program == config::Program::nemo &&
                             config.origin("step_scheduler.val_every_steps").kind == config::Origin::Kind::file;
  if (config.step_scheduler.val_every_steps && no_validation && !of_nemos_file) {
    throw user_error("step_scheduler.val_every_steps {} but validation_dataset names no data",
                     *config.step_scheduler.val_every_steps)
        .at(config.origin("step_scheduler.val_every_steps").place())
        .advise("give validation_dataset a _target_ (mock, bytes), or leave val_every_steps out");
  }
}

// One line for all that the file has and that changes nothing, so that nobody waits for it.
void say_ignored(const Config& config, const std::string& file) {
  std::string keys;
  for (const config::IgnoredKey& ignored : config.ignored) keys += (keys.empty() ? "" : ", ") + ignored.key;
  if (!keys.empty()) log::info("without effect here (sluice config {} says why): {}", file, keys);
}

// "nats/byte" where tokens are bytes.
const char* loss_unit(const Config& config) {
  return config.dataset.target == config::DatasetKind::bytes ? "nats/byte" : "nats/token";
}

// Turns records into what a person sees and a file holds.
class Reporter {
 public:
  // `log` may be null.
  Reporter(const Config& config, Yardstick& yardstick, int64_t steps, Progress& progress, OutputLog* log)
      : yardstick_(yardstick),
        steps_(steps),
        every_(config.logging.every),
        unit_(loss_unit(config)),
        progress_(progress),
        log_(log) {}

  void record(TrainRecord record) {
    if (record.validation_loss) {
      write(record);
      progress_.finish();
      progress_.note(
          fmt::format("step {}/{}  validation loss {:.4f} {}", record.step, steps_, *record.validation_loss, unit_));
      return;
    }
    if (own_steps_ == 0) begun_ = steady_seconds() - record.seconds;
    ++own_steps_;
    const bool written = log_ != nullptr && (record.step % every_ == 0 || record.step == steps_);
    const bool shown = progress_.live() || due(record.step);
    if (!written && !shown) return;
    yardstick_.check(record.seconds, Yardstick::Run::goes_on);
    if (written) {
      const auto below_one = [](double share) { return share <= 1 ? std::optional(share) : std::nullopt; };
      record.mfu = below_one(yardstick_.mfu(record.seconds));
      record.roofline = below_one(yardstick_.roofline_share(record.seconds));
      write(record);
    }
    if (shown) show(record);
  }

  void validating(int64_t done, int64_t all) {
    progress_.wait_for(fmt::format("validating, batch {} of {}", format_count(done + 1), format_count(all)));
  }

 private:
  void write(const TrainRecord& record) {
    if (log_ != nullptr) log_->write_line(record_json(record, std::chrono::system_clock::now()));
  }

  // Without a terminal, at most some thirty lines beside the first.
  bool due(int64_t step) const {
    const int64_t every = std::max(every_, (steps_ + 29) / 30);
    return step == 1 || step == steps_ || step % every == 0;
  }

  void show(const TrainRecord& record) {
    progress_.show({.step = record.step,
                    .steps = steps_,
                    .loss = record.result->loss,
                    .mtp_loss = record.result->mtp_loss,
                    .learning_rate = record.learning_rate,
                    .gradient_norm = record.gradient_norm,
                    .tokens_per_s = record.tokens_per_s,
                    .mfu = yardstick_.mfu(record.seconds),
                    .roofline = yardstick_.roofline_share(record.seconds),
                    .elapsed_seconds = steady_seconds() - begun_,
                    .own_steps = own_steps_});
  }

  Yardstick& yardstick_;
  int64_t steps_;
  int64_t every_;
  const char* unit_;
  double begun_ = 0;  // when the first step of this run was, as steady_seconds() tells
  int64_t own_steps_ = 0;
  Progress& progress_;
  OutputLog* log_;
};

// What is under way, for who ends it.
struct Stage {
  std::atomic<const char*> what = "ending after this step";
  std::atomic<int64_t> steps = 0;

  std::string loss() const {
    if (steps == 0) return "nothing is trained yet";
    return fmt::format("the weights of {} trained step{} are lost", format_count(steps), steps == 1 ? "" : "s");
  }
};

// A failed run's error, with what is lost by it as its last line.
[[noreturn]] void fail(const std::exception& failure, const std::string& loss) {
  const auto* const error = dynamic_cast<const Error*>(&failure);
  if (error == nullptr) {
    const bool memory = dynamic_cast<const std::bad_alloc*>(&failure) != nullptr;
    throw runtime_failure("{}", memory ? "out of memory" : failure.what()).advise(loss);
  }
  const std::string hint = error->hint().empty() ? loss : error->hint() + "\n       " + loss;
  throw Error(error->kind(), error->what()).at(error->where()).advise(hint);
}

std::string summary(const TrainingResult& result, const std::string& unit) {
  std::string text =
      fmt::format("{}: {} steps, {} tokens in {} ({} tok/s)\n", result.stopped ? "stopped" : "done",
                  format_count(result.steps), format_count(result.tokens), format_duration(result.seconds),
                  format_count(static_cast<int64_t>(static_cast<double>(result.tokens) / result.seconds)));
  const std::string recent = result.recent_steps == 1 ? "step" : fmt::format("{} steps", result.recent_steps);
  text += fmt::format("training loss {:.4f} in step 1, {:.4f} mean of the last {} ({})\n", result.first_loss,
                      result.recent_loss, recent, unit);
  if (result.validation_loss) text += fmt::format("validation loss {:.4f} {}\n", *result.validation_loss, unit);
  return text;
}

std::string header(const std::string& file, const RunSpec& spec, const TrainingJob& job, uint64_t bytes, bool kept) {
  const ParamCount parameters = param_count(spec.model);
  const int ranks = spec.mesh.world;
  std::string text =
      wrap(fmt::format("{}: {} parameters ({} used by a token), {} steps of {} x {} tokens, {} rank{}, {} memory", file,
                       format_magnitude(static_cast<double>(parameters.total)),
                       format_magnitude(static_cast<double>(parameters.active)), format_count(job.steps),
                       spec.sampling.global_batch, spec.seq_len, ranks, ranks == 1 ? "" : "s", format_bytes(bytes)),
           page_width(), 2) +
      "\n";
  if (!job.ended_by.empty()) text += wrap("  " + job.ended_by, page_width(), 4) + "\n";
  if (!kept) {
    text += fmt::format("the trained weights will not be kept; --export DIRECTORY keeps them{}\n",
                        ranks == 1 ? "" : ", on one rank");
  }
  return text;
}

}  // namespace

int run_train(const TrainOptions& options) {
  outlive_readers();
  const Config config = load_settings(options.file, options.overrides, options.shortcuts);
  check_settings(config);
  const int ranks = checked_ranks(options.ranks.value_or(ranks_of(config)));
  RunSpec spec = resolve(config, ranks);
  for (const std::string& pattern : unmatched_patterns(config, spec.model)) {
    log::warn("optimizer.param_group_overrides: no parameter's name has the pattern \"{}\"", pattern);
  }
  say_ignored(config, options.file);
  warn_of_unread_fields(config);
  note_long_sequences(config, spec.seq_len);
  const SessionOptions session = session_options(config);
  const std::unique_ptr<Dataset> dataset = make_dataset(config, config.dataset, "dataset", spec);
  const std::unique_ptr<Dataset> validation =
      make_dataset(config, config.validation_dataset, "validation_dataset", spec);
  const std::unique_ptr<Pretrained> weights = find_pretrained(config, spec, config.recipe == config::Recipe::train);
  TrainingJob job = training_job(config, spec, *dataset, validation.get());
  job.weights = weights.get();
  spec = with_steps(std::move(spec), config, job.steps);

  Outputs outputs(Inputs(config, file_of_row(options.file)), options.overwrite);
  std::optional<OutputPlace> log_place;
  if (config.logging.jsonl) {
    log_place = outputs.file(*config.logging.jsonl, "logging.jsonl", config.origin("logging.jsonl").place());
  }
  std::optional<TrainedExport> exported;
  if (options.export_directory) exported.emplace(config, spec, *options.export_directory, outputs);

  Progress progress(stderr, watched_width(), "");
  progress.wait_for("measuring the machine");
  MachineInfo machine = measure_for(spec, session);
  progress.wait_for("planning the run");
  Yardstick yardstick(spec, session, config.benchmark.peak_tflops, machine);
  require_memory(yardstick.forecast(), memory_for(spec, session), kSmallerBatch);
  progress.finish();
  print(header(options.file, spec, job, yardstick.forecast().total_bytes, exported.has_value()));
  std::fflush(stdout);

  Stage stage;
  Interrupt interrupt({.asked =
                           [&] {
                             return fmt::format("{}; again: at once{}", stage.what.load(),
                                                exported ? ", and the trained weights are lost" : "");
                           },
                       .give_up =
                           [&] {
                             if (!exported || exported->written()) return std::string();
                             exported->abandon();
                             return fmt::format("{}; {} is as it was before", stage.loss(), *options.export_directory);
                           }});
  if (exported) exported->begin();
  std::optional<OutputLog> log;
  if (log_place) log.emplace(*log_place, options.overwrite);
  Reporter reporter(config, yardstick, job.steps, progress, log ? &*log : nullptr);
  progress.wait_for("getting ready, first step");
  TrainingEvents events;
  events.recorded = [&](const TrainRecord& record) {
    stage.steps = record.step;
    stage.what = "ending after this step";
    reporter.record(record);
  };
  events.stop = [&] { return interrupt.requested(); };
  events.validating = [&](int64_t done, int64_t all) {
    stage.what = "ending after this batch of the validation";
    reporter.validating(done, all);
  };
  events.trained = [&](Trainer& trainer) {
    progress.finish();
    stage.what = "ending when the weights are written";
    if (exported) exported->write(trainer);
  };
  TrainingResult result;
  try {
    result = run_training(job, spec, session, events);
  } catch (const std::exception& failure) {
    const bool lost = exported && !exported->written() && stage.steps > 0;
    if (exported) exported->abandon();
    if (!lost) throw;
    fail(failure, fmt::format("{}; {} is as it was before", stage.loss(), *options.export_directory));
  }
  print(wrap(summary(result, loss_unit(config)), page_width(), 2));
  if (!exported) print("the trained weights were not kept\n");
  return 0;
}

Command train_command() {
  auto options = std::make_shared<TrainOptions>();
  Command command{
      .name = "train",
      .summary = "train a model as a configuration says",
      .details =
          "Ctrl-C ends the run after the step it is in, and so do SIGTERM and a closed terminal; --export then writes "
          "the\n"
          "weights of that step. The directory appears when it is complete. A second Ctrl-C ends the run at once.",
      .options = {{"FILE", &options->file, "the configuration", "", {}, true},
                  {"--ranks", &options->ranks, "ranks, threads of this process (default: as few as it allows)", "N"},
                  {"--export", &options->export_directory, "write the weights there in the hub's layout at the end",
                   "DIRECTORY"},
                  overwrite_option(options->overwrite)},
      .overrides = &options->overrides,
      .run = [options] { return run_train(*options); }};
  add_shortcuts(command, options->shortcuts);
  return command;
}

}  // namespace sluice::cli
