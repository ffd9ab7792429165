#include "cli/train.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "checkpoint/hub_export.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/model_notes.h"
#include "cli/terminal.h"
#include "cli/version.h"
#include "model/cards.h"
#include "train/make_dataset.h"
#include "train/progress.h"
#include "train/scale_config.h"
#include "train/training.h"
#include "train/yardstick.h"

namespace sluice::cli {
namespace {

// One JSON object a line, written out as it comes.
class JsonLines {
 public:
  explicit JsonLines(const std::optional<std::string>& path) {
    if (!path) return;
    const OutputFile checked(*path);
    path_ = *path;
    file_.open(path_, std::ios::trunc);
    check();
  }
  void write(const TrainRecord& record) {
    if (path_.empty()) return;
    file_ << record_json(record) << std::endl;
    check();
  }

 private:
  void check() const {
    if (!file_) throw runtime_failure("cannot write {}", path_);
  }

  std::string path_;
  std::ofstream file_;
};

// What of a configuration this command cannot do.
void check_settings(const Config& config) {
  for (const char* key : {"benchmark.local_shard", "benchmark.optimizer"}) {
    if (!config.is_set(key)) continue;
    throw user_error("{}: what is left then does not train", key)
        .at(config.origin(key).place())
        .advise("sluice bench times it; leave the key out to train");
  }
  const bool no_validation = config.validation_dataset.target == config::DatasetKind::none;
  if (config.step_scheduler.val_every_steps && no_validation && config.program == config::Program::sluice) {
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

// Where the trained weights go in the hub's layout: known to be possible before anything is trained.
class Export {
 public:
  Export(const Config& config, const RunSpec& spec, const std::string& directory) : config_(config), to_(directory) {
    if (spec.mesh.world > 1) {
      throw user_error("--export {} on {} ranks: one rank must hold all weights", directory, spec.mesh.world)
          .at("command line")
          .advise("leave --ranks out, and distributed.* at 1");
    }
    if (spec.model.num_experts > 0 && spec.router == RouterKind::forced) {
      throw user_error("--export {}: a forced gate has no router to write", directory)
          .at("command line")
          .advise("add --benchmark.balance router");
    }
    prepare_hub_directory(to_);
  }

  void write(Trainer& trainer) const {
    const RunSpec& spec = trainer.spec();
    const std::vector<FlatGroup*> groups = trainer.stage().groups();
    const ExportCount count = export_weights(trainer.context(), spec.model, groups, to_, spec.dtype, {});
    const std::string source = config_.model.config.pretrained_model_name_or_path.value_or("");
    const std::vector<HfOverride> overrides = model_overrides(config_);
    std::error_code ignored;
    const bool directory = std::filesystem::is_directory(source, ignored);
    if (directory) copy_hub_files(source, to_, spec.dtype);
    if (!directory || !overrides.empty()) write_hub_config(load_hf_config(source, overrides), to_, spec.dtype);
    log::info("wrote {} ({})", to_.string(), format_bytes(count.bytes));
  }

 private:
  const Config& config_;
  std::filesystem::path to_;
};

// "nats/byte" where tokens are bytes.
const char* loss_unit(const Config& config) {
  return config.dataset.target == config::DatasetKind::bytes ? "nats/byte" : "nats/token";
}

// Turns records into what a person sees and a file holds.
class Reporter {
 public:
  Reporter(const Config& config, Yardstick& yardstick, int64_t steps, Progress& progress)
      : yardstick_(yardstick),
        steps_(steps),
        every_(config.logging.every),
        unit_(loss_unit(config)),
        lines_(config.logging.jsonl),
        progress_(progress) {}

  void record(const TrainRecord& record) {
    if (record.validation_loss) {
      lines_.write(record);
      progress_.note(
          fmt::format("step {}/{}  validation loss {:.4f} {}", record.step, steps_, *record.validation_loss, unit_));
      return;
    }
    spent_ += record.seconds;
    if (record.step % every_ == 0 || record.step == steps_) lines_.write(record);
    if (progress_.live() || due(record.step)) show(record);
  }

 private:
  // Without a terminal, at most some thirty lines beside the first.
  bool due(int64_t step) const {
    const int64_t every = std::max(every_, (steps_ + 29) / 30);
    return step == 1 || step == steps_ || step % every == 0;
  }

  void show(const TrainRecord& record) {
    yardstick_.check(record.seconds, Yardstick::Run::goes_on);
    progress_.show(
        {.step = record.step,
         .steps = steps_,
         .loss = record.result->loss,
         .mtp_loss = record.result->mtp_loss,
         .tokens_per_s = record.tokens_per_s,
         .mfu = yardstick_.mfu(record.seconds),
         .roofline = yardstick_.roofline_share(record.seconds),
         .eta_seconds = spent_ / static_cast<double>(record.step) * static_cast<double>(steps_ - record.step)});
  }

  Yardstick& yardstick_;
  int64_t steps_;
  int64_t every_;
  const char* unit_;
  double spent_ = 0;
  JsonLines lines_;
  Progress& progress_;
};

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

}  // namespace

int run_train(const TrainOptions& options) {
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

  std::optional<Export> exported;
  if (options.export_directory) exported.emplace(config, spec, *options.export_directory);

  Progress progress(stderr, watched_width(), "");
  progress.wait_for("measuring the machine");
  MachineInfo machine = measure_for(spec, session);
  progress.wait_for("planning the run");
  Yardstick yardstick(spec, session, config.benchmark.peak_tflops, machine);
  require_memory(yardstick.forecast(), memory_for(spec, session), kSmallerBatch);
  progress.finish();
  const ParamCount parameters = param_count(spec.model);
  print(wrap(fmt::format("{}: {} parameters ({} used by a token), {} steps of {} x {} tokens, {} rank{}, {} memory",
                         options.file, format_magnitude(static_cast<double>(parameters.total)),
                         format_magnitude(static_cast<double>(parameters.active)), format_count(job.steps),
                         spec.sampling.global_batch, spec.seq_len, ranks, ranks == 1 ? "" : "s",
                         format_bytes(yardstick.forecast().total_bytes)),
             page_width(), 2) +
        (job.ended_by.empty() ? "" : "\n" + wrap("  " + job.ended_by, page_width(), 4)) + "\n");
  std::fflush(stdout);

  Interrupt interrupt;
  Reporter reporter(config, yardstick, job.steps, progress);
  progress.wait_for("getting ready, first step");
  const TrainingResult result = run_training(job, spec, session,
                                             {.recorded = [&](const TrainRecord& record) { reporter.record(record); },
                                              .stop = [&] { return interrupt.requested(); },
                                              .trained =
                                                  [&](Trainer& trainer) {
                                                    progress.finish();
                                                    if (exported) exported->write(trainer);
                                                  }});
  print(wrap(summary(result, loss_unit(config)), page_width(), 2));
  return 0;
}

Command train_command() {
  auto options = std::make_shared<TrainOptions>();
  Command command{
      .name = "train",
      .summary = "train a model as a configuration says",
      .details = "Ctrl-C ends the run after the step it is in.",
      .options = {{"FILE", &options->file, "the configuration", "", {}, true},
                  {"--ranks", &options->ranks, "ranks, threads of this process (default: as few as it allows)", "N"},
                  {"--export", &options->export_directory, "write the weights there in the hub's layout at the end",
                   "DIRECTORY"}},
      .overrides = &options->overrides,
      .run = [options] { return run_train(*options); }};
  add_shortcuts(command, options->shortcuts);
  return command;
}

}  // namespace sluice::cli
