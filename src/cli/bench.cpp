#include "cli/bench.h"

#include <algorithm>
#include <memory>
#include <set>
#include <tuple>
#include <utility>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/bench_table.h"
#include "cli/command.h"
#include "cli/job_processes.h"
#include "cli/model_notes.h"
#include "cli/ops_table.h"
#include "cli/outputs.h"
#include "cli/terminal.h"
#include "cli/version.h"
#include "device/cpu/bf16_dot.h"
#include "trainer/precision.h"
#include "trainer/scale_config.h"
#include "training/records.h"

namespace sluice::cli {
namespace {

constexpr size_t kMostReportBytes = size_t{1} << 26;
constexpr int kFurtherMeasurements = 2;

// A row ready to run: everything that can be wrong with it has been found.
struct PreparedRow {
  BenchmarkJob job;
  RunSpec spec;
  std::unique_ptr<Pretrained> weights;
  std::optional<PublishedRow> published;
};

// The row as it was published: the file alone, whatever the command line says.
std::optional<PublishedRow> published_row(const Config& row) {
  if (!row.benchmark.published.gpus) return std::nullopt;
  return PublishedRow{row.benchmark.published, row.benchmark.peak_tflops};
}

void set_steps(ScaledConfig& scaled, int timed) {
  config::set(scaled.config, "step_scheduler.max_steps", std::to_string(scaled.config.benchmark.warmup_steps + timed),
              {config::Origin::Kind::command_line, "--steps"});
  std::erase_if(scaled.changes, [](const config::Change& c) { return c.key == "step_scheduler.max_steps"; });
}

// `written`: the file as it stands; it is read once, for it may be a pipe.
PreparedRow prepare(const std::string& file, const Config& written, const BenchOptions& options, bool row_layout,
                    int processes) {
  PreparedRow row;
  const Config settings = apply_settings(written, options.overrides, options.shortcuts);
  row.published = published_row(written);
  row.job.config = file;
  row.job.row_layout = row_layout;
  row.job.scale = options.scale.value_or(!row.published ? "full" : row_layout ? "tiny" : "laptop");
  row.job.profile_ops = options.ops;
  const std::optional<Scale> scale = scale_named(row.job.scale);
  const int ranks = row_layout ? ranks_of(settings) : options.ranks.value_or(processes);
  ScaledConfig scaled = row_layout ? scale_within_layout(settings, scale) : scale_config(settings, scale, ranks);
  if (options.steps) set_steps(scaled, *options.steps);
  if (!row_layout) take_published_precision(scaled.config, scale, cpu::has_bf16_dot());
  row.job.settings = std::move(scaled.config);
  row.job.changes = std::move(scaled.changes);
  row.spec = resolve(row.job.settings, ranks);
  row.weights =
      find_pretrained(row.job.settings, row.spec, settings.recipe == config::Recipe::train && row.job.scale == "full");
  row.job.weights = row.weights.get();
  return row;
}

Layouts layouts_of(const BenchOptions& options, int processes) {
  if (options.layout) {
    return *options.layout == "row" ? Layouts::row : *options.layout == "fit" ? Layouts::fitted : Layouts::both;
  }
  const bool of_layout = std::ranges::any_of(options.overrides, [](const std::string& argument) {
    return argument.starts_with("--distributed.") || argument.starts_with("--step_scheduler.");
  });
  return options.ranks || options.scale || of_layout || processes > 1 ? Layouts::fitted : Layouts::both;
}

std::string word(Layouts layouts) {
  return layouts == Layouts::row ? "row" : layouts == Layouts::fitted ? "fit" : "both";
}

std::vector<PreparedRow> prepare_all(const BenchOptions& options, int processes) {
  const Layouts layouts = layouts_of(options, processes);
  if (layouts == Layouts::row && options.ranks) {
    throw user_error("--ranks {} with --layout row: a row's own layout has its own ranks", *options.ranks)
        .at("command line")
        .advise("leave one of them out");
  }
  std::vector<PreparedRow> prepared;
  for (const std::string& name : options.files.empty() ? published_rows() : options.files) {
    const std::string file = file_of_row(name);
    const Config written = config::load(file);
    if (layouts != Layouts::row) prepared.push_back(prepare(file, written, options, false, processes));
    if (layouts == Layouts::fitted || (layouts == Layouts::both && !prepared.back().published)) continue;
    PreparedRow own = prepare(file, written, options, true, processes);
    if (layouts == Layouts::row || has_quick_step(own.spec)) prepared.push_back(std::move(own));
  }
  std::set<std::string> told;
  for (const PreparedRow& row : prepared) warn_of_unread_fields(row.job.settings, told);
  return prepared;
}

// Processes meet once, for as many ranks as all rows have.
void connect(JobProcesses& processes, const BenchOptions& options, std::vector<PreparedRow>& prepared) {
  const PreparedRow& first = prepared.front();
  JobProcesses::Meeting meeting{.words = options.ops ? "--ops" : "",
                                .ranks = first.spec.mesh.world,
                                .threads = first.job.settings.runtime.threads,
                                .timeout_s = 0};
  for (const PreparedRow& row : prepared) {
    if (row.spec.mesh.world != meeting.ranks && processes.several()) {
      throw user_error("{} has {} ranks and {} has {}: several processes run rows of as many ranks as each other",
                       first.job.config, meeting.ranks, row.job.config, row.spec.mesh.world)
          .at("command line")
          .advise("time each of them in a call of its own");
    }
    meeting.configuration += fmt::format("# {} {} {}\n{}", row.job.config, row.job.scale,
                                         row.job.row_layout ? "row" : "fit", settings_of(row.job.settings));
    meeting.timeout_s = std::max(meeting.timeout_s, row.job.settings.watchdog_seconds());
  }
  processes.connect(meeting);
  if (!processes.several()) return;
  for (PreparedRow& row : prepared) {
    row.job.session = launch_options(row.job.settings);
    processes.share(*row.job.session, row.job.settings);
  }
}

BenchmarkRow run_row(const PreparedRow& prepared, MachineInfo& machine) {
  const std::string name = prepared.job.settings.benchmark.row.value_or(prepared.spec.model.name);
  Progress progress(stderr, watched_width(), prepared.job.row_layout ? name + " layout" : name);
  BenchmarkRow row = run_benchmark(prepared.job, prepared.spec, machine, progress);
  row.published = prepared.published;
  return row;
}

// Where the results go, if anywhere: not over what any of the rows reads.
std::optional<OutputFile> result_file(const BenchOptions& options, const std::vector<PreparedRow>& prepared) {
  const Config& first = prepared.front().job.settings;
  const std::string key = "benchmark.json_output_path";
  const std::optional<std::string> path = options.json ? options.json : first.benchmark.json_output_path;
  if (!path) return std::nullopt;
  outlive_readers();
  const bool by_name = options.files.empty() || std::ranges::any_of(options.files, [](const std::string& name) {
                         return file_of_row(name) != name;
                       });
  std::optional<OutputFile> file;
  for (const PreparedRow& row : prepared) {
    Inputs inputs(row.job.settings, row.job.config);
    // A name is looked for in all of them.
    if (by_name) {
      for (const std::string& other : published_rows()) inputs.add_file(other, "a published row");
    }
    Outputs outputs(std::move(inputs), options.overwrite);
    const OutputPlace place = options.json ? outputs.file(*path, "--json", "command line")
                                           : outputs.file(*path, key, first.origin(key).place());
    if (!file) file.emplace(place, options.overwrite);
  }
  return file;
}

// Measured rows are worth more than the file: only when all are there is it an error that it cannot be written.
void write_report(OutputFile& file, const BenchmarkReport& report, bool last) {
  try {
    file.write(report_json(report));
  } catch (const Error& error) {
    if (last) throw;
    log::warn("{}; it is tried again after the next run", error.what());
  }
}

void print_now(const std::string& text) {
  print(text);
  std::fflush(stdout);
}

int print_recorded(const BenchOptions& options) {
  const bool alone = options.files.empty() && !options.layout && !options.scale && !options.ranks && !options.steps &&
                     !options.json && !options.overwrite && !options.ops && options.overrides.empty() &&
                     !options.shortcuts.device && !options.shortcuts.threads && !options.shortcuts.async_comm;
  if (!alone) {
    throw user_error("--from {} prints a recorded run as it is", *options.from)
        .at("command line")
        .advise("give nothing else with it");
  }
  print(render(read_report(read_input(*options.from, kMostReportBytes), *options.from), page_width()));
  return 0;
}

int run_bench(const BenchOptions& options, JobProcesses& processes) {
  if (options.from) return processes.first() ? print_recorded(options) : 0;
  if (options.ranks) checked_ranks(*options.ranks);
  if (options.steps && *options.steps < 1) {
    throw user_error("--steps {}: at least one is needed", *options.steps).at("command line");
  }
  std::vector<PreparedRow> prepared = prepare_all(options, processes.count());
  connect(processes, options, prepared);
  if (!processes.first()) {
    MachineInfo not_measured;
    for (const PreparedRow& next : prepared) run_row(next, not_measured);
    return 0;
  }
  std::optional<OutputFile> json = result_file(options, prepared);

  if (const double load = busy_cores(); load > 0.5 * usable_cores()) {
    log::warn("other processes keep about {:.1f} of {} cores busy: figures will be low", load, usable_cores());
  }
  const size_t width = page_width();
  BenchmarkReport report{.version = std::string(version()),
                         .commit = std::string(commit()),
                         .layouts = word(layouts_of(options, processes.count())),
                         .machine = {},
                         .rows = {}};
  std::tuple<DeviceKind, int, DType> measured{DeviceKind::cpu, 0, DType::f32};
  std::string ops;
  for (const PreparedRow& next : prepared) {
    const LaunchOptions session = next.job.session ? *next.job.session : launch_options(next.job.settings);
    const std::tuple now{session.device, session.threads,
                         session.device == DeviceKind::cuda ? next.spec.dtype : DType::f32};
    if (now != std::exchange(measured, now)) {
      report.machine = measure_for(next.spec, session);
      // The first row's figures are shares of what is known by then.
      for (int i = 0; i < kFurtherMeasurements; ++i) report.machine.take_best(measure_for(next.spec, session));
    }
    if (report.rows.empty()) print_now(table_head(report, width));
    report.rows.push_back(run_row(next, report.machine));
    print_now(table_lines(report, report.rows.size() - 1, width));
    if (options.ops) ops += "\n" + ops_table(report.rows.back(), width);
    // What comes later may be interrupted; a stream gets the whole alone.
    const bool last = report.rows.size() == prepared.size();
    if (json && (last || json->replaces())) write_report(*json, report, last);
  }
  print("\n" + table_notes(report, width) + ops);
  return 0;
}

}  // namespace

int run_bench(const BenchOptions& options) {
  return JobProcesses::run(options.identity, [&](JobProcesses& processes) { return run_bench(options, processes); });
}

Command bench_command() {
  auto options = std::make_shared<BenchOptions>();
  Command command{
      .name = "bench",
      .summary = "the published benchmark rows on this machine, beside the published figures",
      .details =
          "Scales shrink the model by a rule; sluice config ROW --scale laptop shows the result.\n"
          "A fitted layout has for each parallel degree the largest that --ranks N allows, up to the row's.\n"
          "The row's own layout has its ranks, degrees and batch sizes, each rank a thread, and a tiny model;\n"
          "unless layout, scale, ranks or batch are given it runs too, where a step takes about a second.\n"
          "Published rows are timed in bf16, as published, where the processor multiplies bf16; else, at tiny size "
          "and\n"
          "in their own layout in fp32 (--runtime.dtype bf16, fp32).",
      .options = {{"ROW", &options->files, "names (R4) or files (default: all published rows)"},
                  {"--layout",
                   &options->layout,
                   "its own, or fitted to --ranks (default: see below)",
                   "row|fit|both",
                   {"row", "fit", "both"}},
                  {"--scale",
                   &options->scale,
                   "size of the model (default: of published rows laptop)",
                   "laptop|tiny|full",
                   {"laptop", "tiny", "full"}},
                  {"--ranks", &options->ranks, "ranks of a fitted layout, threads here (default: one a process)", "N"},
                  {"--steps", &options->steps, "timed steps, after the warm-up (default: as configured)", "N"},
                  {"--json", &options->json, "also write the results to a file", "FILE"},
                  overwrite_option(options->overwrite),
                  {"--from", &options->from, "print what --json wrote; nothing is run", "FILE"},
                  {"--ops", &options->ops, "show where one more step's time goes, by operation"}},
      .overrides = &options->overrides,
      .run = [options] { return run_bench(*options); }};
  add_shortcuts(command, options->shortcuts);
  add_identity(command, options->identity);
  return command;
}

}  // namespace sluice::cli
