// `sluice eval`: the loss of a model on a configuration's data.
#include <cmath>
#include <memory>

#include "base/log.h"
#include "base/text.h"
#include "checkpoint/checkpoint_model.h"
#include "cli/checkpoint_settings.h"
#include "cli/command.h"
#include "cli/job_processes.h"
#include "cli/model_notes.h"
#include "cli/outputs.h"
#include "cli/setup.h"
#include "cli/terminal.h"
#include "cli/version.h"
#include "model/family.h"
#include "trainer/make_dataset.h"
#include "trainer/scale_config.h"
#include "training/evaluation.h"
#include "training/progress.h"
#include "training/records.h"
#include "twin/forecast.h"

namespace sluice::cli {
namespace {

struct EvalOptions {
  std::string file;
  std::optional<int> ranks;
  std::optional<int> batches;
  std::optional<std::string> json;
  bool overwrite = false;
  Shortcuts shortcuts;
  std::vector<std::string> overrides;
  launch::IdentityFlags identity;
};

int run_eval(const EvalOptions& options, JobProcesses& processes) {
  outlive_readers();
  const std::optional<std::filesystem::path> checkpoint = find_checkpoint(options.file);
  const Config config = checkpoint
                            ? apply_settings(run_of_checkpoint(*checkpoint), options.overrides, options.shortcuts)
                            : load_settings(options.file, options.overrides, options.shortcuts);
  if (options.batches && *options.batches < 1) {
    throw user_error("--batches {}: at least one is needed", *options.batches).at("command line");
  }
  const int ranks = checked_ranks(options.ranks.value_or(ranks_of(config)));
  RunSpec spec = resolve(config, ranks);
  spec.optimize = false;
  warn_of_unread_fields(config);
  processes.connect({.configuration = settings_of(config),
                     .words = options.batches ? fmt::format("--batches {}", *options.batches) : "",
                     .ranks = ranks,
                     .threads = config.runtime.threads,
                     .timeout_s = config.watchdog_seconds()});
  LaunchOptions session = launch_options(config);
  processes.share(session, config);
  const bool validation = config.validation_dataset.target != config::DatasetKind::none;
  const std::string section = validation ? "validation_dataset" : "dataset";
  const config::Dataset& data = validation ? config.validation_dataset : config.dataset;
  const std::unique_ptr<Dataset> dataset = make_dataset(config, data, section, spec);
  processes.require_same({{section, dataset->identity()}});
  const std::unique_ptr<Pretrained> weights = find_pretrained(config, spec, true);
  const int64_t samples = evaluation_samples(spec, *dataset, options.batches);
  if (!processes.first()) {
    run_evaluation(spec, session, *dataset, samples, weights.get(), {});
    return 0;
  }
  Outputs outputs(Inputs(config, file_of_row(options.file)), options.overwrite);
  std::optional<OutputFile> json;
  if (options.json) json.emplace(outputs.file(*options.json, "--json", "command line"), options.overwrite);
  Progress progress(stderr, watched_width(), "");
  progress.wait_for("planning the evaluation");
  require_memory(forecast_run(spec, session, measure_for(spec, session)), memory_for(spec, session), kSmallerBatch);
  progress.finish();
  const ParamCount parameters = param_count(spec.model);
  const auto line = [](const std::string& text) { print(wrap(text, page_width(), 2) + "\n"); };
  line(fmt::format("{}: {} parameters{}, {} of {} x {} tokens in batches of {}", options.file,
                   format_magnitude(static_cast<double>(parameters.total)), weights ? "" : " drawn at random", section,
                   format_count(samples), spec.seq_len, spec.sampling.global_batch));
  std::fflush(stdout);
  progress.wait_for("evaluating");

  const Evaluation result =
      run_evaluation(spec, session, *dataset, samples, weights.get(), [&](int64_t done, int64_t all) {
        progress.wait_for(fmt::format("evaluating, batch {} of {}", format_count(done + 1), format_count(all)));
      });
  progress.finish();
  const auto& [loss, tokens, complete] = result.evaluated;
  if (!std::isfinite(loss)) {
    throw runtime_failure("the loss is {}", loss)
        .advise("weights that are not finite, or too large for runtime.dtype, make it so");
  }
  const bool bytes = data.target == config::DatasetKind::bytes;
  line(fmt::format(
      "loss {:.4f} nats/{}, {}, over {} tokens in {} ({} tok/s in {})", loss, bytes ? "byte" : "token",
      bytes ? fmt::format("{:.4f} bits/byte", loss / std::log(2.0)) : fmt::format("perplexity {:.4g}", std::exp(loss)),
      format_count(tokens), format_duration(result.seconds),
      format_count(static_cast<int64_t>(static_cast<double>(tokens) / result.seconds)), precision_name(spec.dtype)));
  if (json) {
    json->write(
        evaluation_json({.version = std::string(version()),
                         .commit = std::string(commit()),
                         .config = options.file,
                         .dataset = section,
                         .bytes = bytes,
                         .weights = weights ? config.model.config.pretrained_model_name_or_path.value_or("") : "",
                         .model = spec.model.name,
                         .parameters = parameters.total,
                         .device = std::string(config::word(config.runtime.device)),
                         .dtype = precision_name(spec.dtype),
                         .ranks = spec.mesh.world,
                         .global_batch = spec.sampling.global_batch,
                         .seq_len = spec.seq_len,
                         .evaluation = result}));
  }
  return 0;
}

}  // namespace

Command eval_command() {
  auto options = std::make_shared<EvalOptions>();
  Command command{
      .name = "eval",
      .summary = "the loss of a model on a configuration's validation_dataset, or else its dataset",
      .details =
          "Weights are those of model.config's directory where it has some. A checkpoint stands for its run's\n"
          "configuration with its weights, a run's directory for its newest checkpoint.",
      .options = {{"FILE", &options->file, "the configuration, a checkpoint or a run's directory", "", {}, true},
                  {"--batches", &options->batches, "global batches at most (default: all the data has)", "N"},
                  {"--ranks", &options->ranks, "ranks, threads of its processes (default: as few as it allows)", "N"},
                  {"--json", &options->json, "also write the result to a file, with all digits", "FILE"},
                  overwrite_option(options->overwrite)},
      .overrides = &options->overrides,
      .run = [options] {
        return JobProcesses::run(options->identity,
                                 [&](JobProcesses& processes) { return run_eval(*options, processes); });
      }};
  add_shortcuts(command, options->shortcuts);
  add_identity(command, options->identity);
  return command;
}

}  // namespace sluice::cli
