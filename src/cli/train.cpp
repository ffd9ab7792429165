#include "cli/train.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <memory>
#include <new>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/hub_export.h"
#include "cli/checkpoint_settings.h"
#include "cli/command.h"
#include "cli/follow.h"
#include "cli/interrupt.h"
#include "cli/job_processes.h"
#include "cli/model_notes.h"
#include "cli/outputs.h"
#include "cli/run_directory.h"
#include "cli/run_log.h"
#include "cli/terminal.h"
#include "cli/train_settings.h"
#include "cli/trained_export.h"
#include "cli/version.h"
#include "trainer/make_dataset.h"
#include "trainer/scale_config.h"
#include "training/progress.h"
#include "training/resume.h"
#include "training/training.h"
#include "training/yardstick.h"

namespace sluice::cli {
namespace {

// "nats/byte" where tokens are bytes.
const char* loss_unit(const Config& config) {
  return config.dataset.target == config::DatasetKind::bytes ? "nats/byte" : "nats/token";
}

// Where records are written; null: nowhere.
struct Logs {
  std::function<void(const std::string& line)> training = {};
  std::function<void(const std::string& line)> validation = {};
  std::function<void(const std::string& line)> both = {};
};

// Turns records into what a person sees and files hold.
class Reporter {
 public:
  Reporter(const Config& config, Yardstick& yardstick, int64_t steps, Progress& progress, const Logs& logs)
      : yardstick_(yardstick),
        steps_(steps),
        every_(config.logging.every),
        unit_(loss_unit(config)),
        progress_(progress),
        logs_(logs) {}

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
    const bool written = record.step % every_ == 0 || record.step == steps_;
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
    const std::string line = record_json(record, std::chrono::system_clock::now());
    const auto& own = record.validation_loss ? logs_.validation : logs_.training;
    if (own) own(line);
    if (logs_.both) logs_.both(line);
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
                    .precision = precision_name(yardstick_.dtype()),
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
  const Logs& logs_;
};

// What is under way, for who ends it.
struct Stage {
  std::atomic<const char*> what = "ending after this step";
  std::atomic<int64_t> steps = 0;
  std::atomic<int64_t> saved = -1;  // the last step that is; -1: none, or nothing is saved at all
  std::atomic<double> step_seconds = 0;
  std::atomic<double> save_seconds = 0;

  std::string loss() const {
    if (saved >= 0) {
      const int64_t lost = steps - saved;
      if (lost <= 0) return "nothing is lost";
      return fmt::format("{} step{} after step {} are lost", format_count(lost), lost == 1 ? "" : "s",
                         format_count(saved));
    }
    if (steps == 0) return "nothing is trained yet";
    return fmt::format("the weights of {} trained step{} are lost", format_count(steps), steps == 1 ? "" : "s");
  }
  // "ending after this step and a save, in about 3 s"
  std::string end(bool saves) const {
    const double seconds = step_seconds + (saves ? save_seconds.load() : 0);
    constexpr double kLeast = 1;
    return fmt::format("{}{}, in about {}", what.load(), saves ? " and a save" : "",
                       format_duration(std::max(seconds, kLeast)));
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

std::string summary(const TrainingResult& result, DType dtype, const std::string& unit) {
  std::string text = fmt::format(
      "{}: {} steps{}, {} tokens in {} ({} tok/s in {})\n", result.stopped ? "stopped" : "done",
      format_count(result.steps),
      result.own_steps < result.steps ? fmt::format(", {} of them now", format_count(result.own_steps)) : "",
      format_count(result.tokens), format_duration(result.seconds),
      format_count(static_cast<int64_t>(static_cast<double>(result.tokens) / std::max(result.seconds, 1e-9))),
      precision_name(dtype));
  const std::string recent = result.recent_steps == 1 ? "step" : fmt::format("{} steps", result.recent_steps);
  text += fmt::format("training loss {:.4f} in step 1, {:.4f} mean of the last {} ({})\n", result.first_loss,
                      result.recent_loss, recent, unit);
  if (result.validation_loss) text += fmt::format("validation loss {:.4f} {}\n", *result.validation_loss, unit);
  return text;
}

// `kept`: what is said of the trained weights; empty where they are lost.
std::string header(const std::string& file, const RunSpec& spec, const TrainingJob& job, uint64_t bytes,
                   const std::string& kept) {
  const ParamCount parameters = param_count(spec.model);
  const int ranks = spec.mesh.world;
  std::string text =
      wrap(fmt::format("{}: {} parameters ({} used by a token), {} steps of {} x {} tokens, {} rank{}, {}, {} memory",
                       file, format_magnitude(static_cast<double>(parameters.total)),
                       format_magnitude(static_cast<double>(parameters.active)), format_count(job.steps),
                       spec.sampling.global_batch, spec.seq_len, ranks, ranks == 1 ? "" : "s",
                       precision_name(spec.dtype), format_bytes(bytes)),
           page_width(), 2) +
      "\n";
  if (!job.ended_by.empty()) text += wrap("  " + job.ended_by, page_width(), 4) + "\n";
  if (kept.empty()) {
    text += "the trained weights will not be kept (checkpoint.enabled is false);\n  --export DIRECTORY keeps them\n";
  } else {
    text += wrap(kept, page_width(), 2) + "\n";
  }
  return text;
}

// The command that goes on with this run from the checkpoint of a step.
std::string resume_command(const Config& config, const TrainOptions& options, const CheckpointFolder& folder,
                           int64_t step) {
  // What came through a pipe cannot be read again; the checkpoint has it too.
  const bool piped = output_place(options.file).descriptor >= 0;
  std::string command =
      "sluice train " + quoted_for_shell(piped ? (folder.of_step(step) / kSettingsFile).string() : options.file);
  if (options.ranks) command += fmt::format(" --ranks {}", *options.ranks);
  if (options.shortcuts.device) command += " --device " + *options.shortcuts.device;
  if (options.shortcuts.threads) command += fmt::format(" --threads {}", *options.shortcuts.threads);
  if (options.shortcuts.async_comm) command += " --async-comm";
  if (options.export_directory) command += " --export " + quoted_for_shell(*options.export_directory);
  if (options.overwrite) command += " --overwrite";
  for (const std::string& word : options.overrides) command += " " + quoted_for_shell(word);
  if (piped) return command + " --resume " + quoted_for_shell(folder.path().string());
  const bool by_itself = config.program == config::Program::nemo;
  return by_itself ? command : command + " --resume";
}

// "checkpoints in runs/tiny: every 30 steps, at the end"
std::string describe_saving(const SaveSchedule& schedule, const std::filesystem::path& directory) {
  std::string when;
  if (schedule.every) when = fmt::format("every {} steps, ", format_count(*schedule.every));
  if (schedule.epoch && schedule.epoch != schedule.every) {
    when += fmt::format("every epoch ({} steps), ", format_count(*schedule.epoch));
  }
  return fmt::format("checkpoints in {}: {}at the end", directory.string(), when);
}

// How a run is saved; all outlive it.
class Saving {
 public:
  Saving(const Config& config, const RunSpec& spec, int64_t steps, const RunDirectory& directory, const Manifest& run,
         Stage& stage, Progress& progress)
      : config_(config), spec_(spec), steps_(steps), stage_(stage), progress_(progress) {
    const config::Checkpoint& keys = config.checkpoint;
    options_ = {.folder = &directory.folder(),
                .in_background = keys.is_async,
                .go_on = keys.on_failure == config::SaveFailure::go_on,
                .resumed = directory.checkpoint() != nullptr
                               ? std::optional(directory.checkpoint()->manifest().run.step)
                               : std::nullopt,
                .retention = {.recent = keys.max_recent_checkpoints, .every = keys.keep_every_steps},
                .manifest = run,
                .beside = [this](const std::filesystem::path& staged) { write_beside(staged); },
                .complete = [this](const std::filesystem::path& staged, int64_t step) { consolidate(staged, step); },
                .complete_bytes = [this](int64_t step) { return consolidates(step) ? weight_bytes() : 0; },
                .saved = [this](const SaveReport& report) { saved(report); }};
  }
  Saving(const Saving&) = delete;
  Saving& operator=(const Saving&) = delete;
  Saving(Saving&&) = delete;
  Saving& operator=(Saving&&) = delete;
  ~Saving() = default;

  const SaveOptions& options() const { return options_; }
  void sync_logs_by(std::function<void()> sync) { sync_logs_ = std::move(sync); }

 private:
  // So that a checkpoint says by itself what model it is of and how it was trained.
  void write_beside(const std::filesystem::path& staged) const {
    // What stands in the logs of a step that is saved is not lost to a crash either.
    if (sync_logs_) sync_logs_();
    write_file_atomic(staged / kSettingsFile, config::to_yaml(config_));
    write_model(staged);
  }
  void write_model(const std::filesystem::path& directory) const {
    write_model_files(config_.model.config.pretrained_model_name_or_path.value_or(""), model_overrides(config_),
                      directory, spec_.dtype);
  }
  // A run that is ended before its last step has no final one: who ended it does not wait for that.
  bool consolidates(int64_t step) const {
    const config::Consolidated wanted = config_.checkpoint.save_consolidated;
    const bool forced = spec_.model.num_experts > 0 && spec_.router == RouterKind::forced;
    const bool now = wanted == config::Consolidated::every || (wanted == config::Consolidated::final && step == steps_);
    return now && !forced;
  }
  uint64_t weight_bytes() const { return static_cast<uint64_t>(param_count(spec_.model).total) * size_of(spec_.dtype); }
  void consolidate(const std::filesystem::path& staged, int64_t step) const {
    if (!consolidates(step)) return;
    const std::filesystem::path directory = staged / "consolidated";
    std::filesystem::create_directory(directory);
    export_checkpoint(Checkpoint(staged), spec_.model, directory, spec_.dtype, {});
    write_model(directory);
  }
  void saved(const SaveReport& report) {
    stage_.saved = report.step;
    stage_.save_seconds = report.seconds;
    std::string text =
        fmt::format("saved {} ({} in {}; training waited {}", report.path.string(), format_bytes(report.bytes),
                    format_duration(report.seconds), format_duration(report.blocked));
    if (report.forecast_blocked) text += fmt::format(", {} expected", format_duration(*report.forecast_blocked));
    progress_.note(text + ")");
  }

  const Config& config_;
  const RunSpec& spec_;
  int64_t steps_;  // of the whole run
  Stage& stage_;
  Progress& progress_;
  std::function<void()> sync_logs_;
  SaveOptions options_;
};

// What all processes must have been told alike, beside the configuration.
std::string words_of(const TrainOptions& options) {
  std::string words;
  if (options.resume) words += " --resume " + *options.resume;
  if (options.export_directory) words += " --export " + *options.export_directory;
  if (options.overwrite) words += " --overwrite";
  return words;
}

int run_train(const TrainOptions& options, JobProcesses& processes) {
  outlive_readers();
  const Config config = load_settings(options.file, options.overrides, options.shortcuts);
  check_settings(config);
  const int ranks = checked_ranks(options.ranks.value_or(ranks_of(config)));
  RunSpec spec = resolve(config, ranks, Purpose::train);
  warn_of_idle_keys(config, spec);
  say_ignored(config, options.file);
  warn_of_unread_fields(config);
  note_long_sequences(config, spec.seq_len);
  processes.connect({.configuration = settings_of(config),
                     .words = words_of(options),
                     .ranks = ranks,
                     .threads = config.runtime.threads,
                     .timeout_s = config.watchdog_seconds()});
  LaunchOptions session = launch_options(config);
  processes.share(session, config);
  const std::unique_ptr<Dataset> dataset = make_dataset(config, config.dataset, "dataset", spec);
  const std::unique_ptr<Dataset> validation =
      make_dataset(config, config.validation_dataset, "validation_dataset", spec);
  const std::unique_ptr<Pretrained> weights = find_pretrained(config, spec, config.recipe == config::Recipe::train);
  TrainingJob job = training_job(config, spec, *dataset, validation.get());
  job.weights = weights.get();

  const Manifest run = describe_run(config, *dataset, std::string(version()), validation.get());
  // Model files and data, which lie on every host.
  processes.require_same(run.identity);
  if (processes.several() && options.export_directory && !config.checkpoint.enabled) {
    throw user_error("--export of several processes, and checkpoint.enabled is false")
        .at(config.origin("checkpoint.enabled").place())
        .advise("set checkpoint.enabled: true: the last checkpoint is what is exported");
  }
  if (!processes.first()) {
    return follow(spec, std::move(job), session, config, run, options.export_directory.has_value(), processes);
  }

  Stage stage;
  Progress progress(stderr, watched_width(), "");
  Outputs outputs(Inputs(config, file_of_row(options.file)), options.overwrite);
  std::optional<RunDirectory> directory;
  std::optional<Saving> saving;
  if (config.checkpoint.enabled) {
    const std::string file = file_of_row(options.file);
    outputs.refuse_run_directory(RunDirectory::expected(config, file, options.resume));
    directory.emplace(config, file, options.resume, run);
    outputs.run_directory(directory->path());
    saving.emplace(config, spec, job.steps, *directory, run, stage, progress);
    job.saving = &saving->options();
    job.resumed = directory->checkpoint();
    if (job.resumed != nullptr) {
      const RunState& left = job.resumed->manifest().run;
      directory->folder().link_resumed({left.step, job.resumed->path()}, left.best && left.best->step == left.step);
    }
  } else if (options.resume || config.checkpoint.restore_from) {
    throw user_error("{}, and checkpoint.enabled is false",
                     options.resume ? "--resume" : "checkpoint.restore_from " + *config.checkpoint.restore_from)
        .at(config.origin("checkpoint.enabled").place())
        .advise("set checkpoint.enabled: true");
  }
  processes.from_first(directory ? std::filesystem::absolute(directory->path()).string() : "");
  processes.from_first(job.resumed != nullptr ? std::filesystem::absolute(job.resumed->path()).string() : "");
  const RunState at = job.resumed != nullptr ? job.resumed->manifest().run : RunState{};
  spec = with_steps(std::move(spec), config, job.steps, job.resumed != nullptr ? horizon_of(at) : Horizon{});

  const bool goes_on = directory && directory->has_own_log();
  std::optional<OutputPlace> log_place;
  if (config.logging.jsonl) {
    log_place = outputs.file(*config.logging.jsonl, "logging.jsonl", config.origin("logging.jsonl").place(), goes_on);
  }
  std::optional<TrainedExport> exported;
  if (options.export_directory) exported.emplace(config, spec, *options.export_directory, outputs);
  if (job.resumed != nullptr) {
    stage.steps = at.step;
    const bool made = at.step >= job.steps;
    const std::string place = directory->path().string(), step = format_count(at.step);
    print(wrap(made ? fmt::format("{}: all of its {} steps are made", place, step)
                    : fmt::format("{}: goes on from step {} of {}", place, step, format_count(job.steps)),
               page_width(), 2) +
          "\n");
    if (made && !exported) {
      print("a larger step_scheduler.max_steps goes on\n");
      return 0;
    }
  }

  progress.wait_for("measuring the machine");
  MachineInfo machine = measure_for(spec, session);
  progress.wait_for("planning the run");
  Yardstick yardstick(spec, session, config.benchmark.peak_tflops, machine);
  require_memory(yardstick.forecast(), memory_for(spec, session), kSmallerBatch);
  progress.finish();
  std::string kept = saving ? describe_saving(job.schedule, directory->path()) : std::string();
  if (exported) kept += fmt::format("{}the trained weights in {}", kept.empty() ? "" : "; ", *options.export_directory);
  print(header(options.file, spec, job, yardstick.forecast().total_bytes, kept));
  std::fflush(stdout);

  Interrupt interrupt(
      {.asked =
           [&] {
             const bool lost = exported.has_value() && !saving;
             return fmt::format("{}; again: at once{}", stage.end(saving.has_value()),
                                lost ? ", and the trained weights are lost" : "");
           },
       .give_up =
           [&] {
             if (exported && exported->written()) return std::string();
             if (exported) exported->abandon();
             if (!exported && !saving) return std::string();
             return stage.loss() + (exported ? fmt::format("; {} is as it was before", *options.export_directory) : "");
           }},
      saving ? listened_to(config) : std::vector<int>{});
  if (exported) exported->begin();
  Logs logs;
  std::optional<RunLog> training_log, validation_log, own_log;
  std::optional<OutputLog> stream_log;
  if (directory) {
    training_log.emplace(directory->path() / kTrainingLog, at.step);
    validation_log.emplace(directory->path() / kValidationLog, at.step);
    logs.training = [&](const std::string& line) { training_log->write_line(line); };
    logs.validation = [&](const std::string& line) { validation_log->write_line(line); };
  }
  if (log_place && goes_on && log_place->kind != OutputPlace::Kind::stream) {
    own_log.emplace(log_place->path, at.step);
  } else if (log_place) {
    stream_log.emplace(*log_place, options.overwrite);
  }
  if (log_place) {
    logs.both = [&](const std::string& line) { own_log ? own_log->write_line(line) : stream_log->write_line(line); };
  }
  if (saving) {
    saving->sync_logs_by([&] {
      for (const std::optional<RunLog>* log : {&training_log, &validation_log, &own_log}) {
        if (*log) (*log)->sync();
      }
    });
  }
  Reporter reporter(config, yardstick, job.steps, progress, logs);
  progress.wait_for("getting ready, first step");
  TrainingEvents events;
  events.recorded = [&](const TrainRecord& record) {
    stage.steps = record.step;
    if (record.result) stage.step_seconds = record.seconds;
    stage.what = "ending after this step";
    reporter.record(record);
  };
  events.begun = [&](const RunState& begun) {
    if (job.resumed != nullptr) stage.saved = begun.step;
  };
  events.stop = [&] { return interrupt.requested(); };
  events.validating = [&](int64_t done, int64_t all) {
    stage.what = "ending after this batch of the validation";
    reporter.validating(done, all);
  };
  events.rolled_back = [&](int64_t step) {
    stage.steps = step;
    if (stream_log && log_place->kind != OutputPlace::Kind::stream) {
      stream_log.reset();
      own_log.emplace(log_place->path, step);
    }
    for (std::optional<RunLog>* log : {&training_log, &validation_log, &own_log}) {
      if (*log) (*log)->go_back(step);
    }
  };
  events.trained = [&](Trainer& trainer, const TrainingResult& trained) {
    const bool first = trainer.mesh().world.world_rank() == 0;
    if (first) progress.finish();
    if (!exported) return;
    // Without a checkpoint the weights come from the ranks themselves.
    if (!saving || !trained.saved) {
      stage.what = "ending when the weights are written";
      return exported->write(trainer);
    }
    if (!first) return;
    // A run that goes on later has its end then.
    if (trained.stopped) {
      exported->abandon();
      return log::info("{} is written at the end of the run", *options.export_directory);
    }
    stage.what = "ending when the weights are written";
    exported->write(Checkpoint(directory->folder().of_step(stage.saved)), spec);
  };
  TrainingResult result;
  try {
    result = run_training(job, spec, session, events);
  } catch (const std::exception& failure) {
    // One that was complete when it failed.
    if (directory) {
      const std::vector<FoundCheckpoint> found = find_checkpoints(directory->path());
      if (!found.empty()) stage.saved = std::max(stage.saved.load(), found.back().step);
    }
    const bool lost = exported && !exported->written() && stage.steps > 0;
    if (exported) exported->abandon();
    const bool written = exported && exported->written();
    const std::string where = written ? fmt::format("the trained weights are in {}", *options.export_directory) : "";
    if (stage.saved >= 0) {
      fail(failure, fmt::format("{}the last checkpoint is {}; to go on from it: {}", written ? where + "; " : "",
                                directory->folder().of_step(stage.saved).string(),
                                resume_command(config, options, directory->folder(), stage.saved)));
    }
    if (written) fail(failure, where);
    if (!lost) throw;
    fail(failure, fmt::format("{}; {} is as it was before", stage.loss(), *options.export_directory));
  }
  print(wrap(summary(result, spec.dtype, loss_unit(config)), page_width(), 2));
  if (!exported && !saving) print("the trained weights were not kept\n");
  if (result.stopped && saving) {
    print(wrap(fmt::format("{}step {} of {} is saved; to go on:\n",
                           result.out_of_time ? "step_scheduler.max_minutes are over: " : "",
                           format_count(result.steps), format_count(job.steps)),
               page_width(), 2));
    // As it is, whatever the width: it may be copied.
    print(fmt::format("  {}\n", resume_command(config, options, directory->folder(), result.steps)));
  }
  constexpr int kBySignal = 128;
  return interrupt.requested() && result.stopped ? kBySignal + interrupt.signal() : 0;
}

}  // namespace

int run_train(const TrainOptions& options) {
  return JobProcesses::run(options.identity, [&](JobProcesses& processes) { return run_train(options, processes); });
}

Command train_command() {
  auto options = std::make_shared<TrainOptions>();
  Command command{
      .name = "train",
      .summary = "train a model as a configuration says",
      .details =
          "A run is saved into runs/NAME, the file's own name, or where checkpoint.checkpoint_dir says. --resume goes "
          "on\n"
          "with the newest run of the same configuration and begins one where there is none, so that the same command\n"
          "starts a run and starts it again.\n\n"
          "Ctrl-C ends the run after the step it is in, saved, with exit code 130; SIGTERM, SIGUSR1 and a closed "
          "terminal\n"
          "do so too (128 + the signal). A second one ends it at once: what was saved before stays whole.",
      .options = {{"FILE", &options->file, "the configuration", "", {}, true},
                  {"--ranks", &options->ranks, "ranks, threads of its processes (default: as few as it allows)", "N"},
                  {.name = "--resume",
                   .target = &options->resume,
                   .help = "go on from the newest checkpoint, of DIR if it is named",
                   .placeholder = "[DIR]",
                   .value_optional = true},
                  {"--export", &options->export_directory, "write the weights there in the hub's layout at the end",
                   "DIRECTORY"},
                  overwrite_option(options->overwrite)},
      .overrides = &options->overrides,
      .run = [options] { return run_train(*options); }};
  add_shortcuts(command, options->shortcuts);
  add_identity(command, options->identity);
  return command;
}

}  // namespace sluice::cli
