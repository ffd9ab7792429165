#include "cli/bench.h"

#include <memory>
#include <tuple>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "cli/bench_table.h"
#include "cli/command.h"
#include "cli/ops_table.h"
#include "cli/terminal.h"
#include "cli/version.h"
#include "train/records.h"
#include "train/scale_config.h"

namespace sluice::cli {
namespace {

// A row ready to run: everything that can be wrong with it has been found.
struct PreparedRow {
  BenchmarkJob job;
  RunSpec spec;
  std::unique_ptr<Pretrained> weights;
  std::vector<config::Change> changes;
  std::optional<PublishedRow> published;
  bool scaled_unasked = false;
};

// The row as it was published: the file alone, whatever the command line says.
std::optional<PublishedRow> published_row(const std::string& file) {
  const Config row = config::load(file);
  if (!row.benchmark.published.gpus) return std::nullopt;
  return PublishedRow{row.benchmark.published, layout_of(resolve(row, ranks_of(row), Purpose::plan)),
                      row.benchmark.peak_tflops};
}

PreparedRow prepare(const std::string& file, const BenchOptions& options) {
  PreparedRow row;
  const Config settings = load_settings(file, options.overrides, options.shortcuts);
  row.published = published_row(file);
  row.scaled_unasked = !options.scale && row.published;
  row.job.config = file;
  row.job.scale = options.scale.value_or(row.published ? "laptop" : "full");
  row.job.profile_ops = options.ops;
  ScaledConfig scaled = scale_config(settings, scale_named(row.job.scale), options.ranks);
  if (options.steps) {
    config::set(scaled.config, "step_scheduler.max_steps",
                std::to_string(scaled.config.benchmark.warmup_steps + *options.steps),
                {config::Origin::Kind::command_line, "--steps"});
    std::erase_if(scaled.changes, [](const config::Change& c) { return c.key == "step_scheduler.max_steps"; });
  }
  row.job.settings = std::move(scaled.config);
  row.changes = std::move(scaled.changes);
  row.spec = resolve(row.job.settings, options.ranks);
  row.weights =
      find_pretrained(row.job.settings, row.spec, settings.recipe == config::Recipe::train && row.job.scale == "full");
  row.job.weights = row.weights.get();
  return row;
}

std::string head(const MachineInfo& machine, int threads) {
  const std::string on =
      machine.gpu.empty() ? fmt::format(" on {} thread{}", threads, threads == 1 ? "" : "s") : std::string();
  return fmt::format("sluice {} ({})  |  {}\nmeasured now{}: {}\n\n", version(), commit(), describe(machine), on,
                     describe_ceilings(machine));
}

BenchmarkRow run_row(const PreparedRow& prepared, MachineInfo& machine) {
  Progress progress(stderr, watched_width(), prepared.job.settings.benchmark.row.value_or(""));
  if (prepared.scaled_unasked) {
    log::info("{} was measured on {} GPUs: here it runs at laptop scale on {} (--scale full: as written)",
              prepared.spec.model.name, prepared.published->layout.ranks,
              config::word(prepared.job.settings.runtime.device));
  }
  BenchmarkRow row = run_benchmark(prepared.job, prepared.spec, machine, progress);
  row.published = prepared.published;
  return row;
}

}  // namespace

int run_bench(const BenchOptions& options) {
  checked_ranks(options.ranks);
  if (options.steps && *options.steps < 1) {
    throw user_error("--steps {}: at least one is needed", *options.steps).at("command line");
  }
  std::vector<PreparedRow> prepared;
  for (const std::string& file : options.files.empty() ? published_rows() : options.files) {
    prepared.push_back(prepare(file, options));
  }
  std::optional<OutputFile> json;
  const std::string path =
      options.json.empty() ? prepared.front().job.settings.benchmark.json_output_path.value_or("") : options.json;
  for (const PreparedRow& row : prepared) {
    if (!path.empty()) json.emplace(path, row.job.config);
  }

  if (const double load = busy_cores(); load > 0.5 * usable_cores()) {
    log::warn("other processes keep about {:.1f} of {} cores busy: figures will be low", load, usable_cores());
  }
  MachineInfo machine;
  std::tuple<Device, int, DType> measured{Device::cpu, 0, DType::f32};
  std::vector<BenchmarkRow> rows;
  std::string notes;
  std::string ops;
  for (const PreparedRow& next : prepared) {
    const SessionOptions session = session_options(next.job.settings);
    const std::tuple now{session.device, session.threads,
                         session.device == Device::cuda ? next.spec.dtype : DType::f32};
    if (now != std::exchange(measured, now)) machine = measure_for(next.spec, session);
    rows.push_back(run_row(next, machine));
    if (rows.size() == 1) print(head(machine, session.threads) + table_head());
    print(table_lines(rows.back()));
    std::fflush(stdout);
    notes += table_notes(rows.back(), next.changes);
    if (options.ops) ops += "\n" + ops_table(rows.back(), page_width());
  }
  if (const std::string note = peak_note(machine); !note.empty()) notes += wrap(note, page_width(), 3) + "\n";
  print("\n" + notes + table_legend() + ops);
  if (json) json->write(benchmark_json(machine, commit(), rows));
  return 0;
}

Command bench_command() {
  auto options = std::make_shared<BenchOptions>();
  Command command{
      .name = "bench",
      .summary = "the published benchmark rows on this machine, beside the published figures",
      .details =
          "Scales shrink the model by a rule; sluice config ROW.yaml --scale laptop shows the result.\n"
          "With --ranks N each parallel degree becomes the largest that N ranks allow, up to the row's.",
      .options = {{"ROW", &options->files, "configurations to run (default: all published rows)"},
                  {"--scale",
                   &options->scale,
                   "size of the model (default: laptop for published rows)",
                   "laptop|tiny|full",
                   {"laptop", "tiny", "full"}},
                  {"--ranks", &options->ranks, "ranks, threads of this process (default: 1)", "N"},
                  {"--steps", &options->steps, "timed steps, after the warm-up (default: as configured)", "N"},
                  {"--json", &options->json, "also write the results to a file", "FILE"},
                  {"--ops", &options->ops, "show where one more step's time goes, by operation"}},
      .overrides = &options->overrides,
      .run = [options] { return run_bench(*options); }};
  add_shortcuts(command, options->shortcuts);
  return command;
}

}  // namespace sluice::cli
