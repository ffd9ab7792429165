#include "cli/plan.h"

#include <cmath>
#include <functional>
#include <utility>

#include "base/clock.h"
#include "base/text.h"
#include "cli/model_notes.h"
#include "cli/outputs.h"
#include "cli/setup.h"
#include "cli/terminal.h"
#include "device/cpu/bf16_dot.h"
#include "machine/machine_info.h"
#include "plan/report.h"
#include "trainer/precision.h"
#include "trainer/scale_config.h"
#include "training/progress.h"

namespace sluice {

namespace {

// In what a machine trains, where the configuration leaves it open.
RunSpec resolve_for(const Config& config, int ranks, const Profile& profile) {
  RunSpec spec = resolve(config, ranks, Purpose::plan);
  return precision_is_open(config) ? computed_in(std::move(spec), config, profile.dtype) : spec;
}

std::string list_changes(const std::vector<config::Change>& changes) {
  if (changes.empty()) return {};
  std::string text = "changed:";
  for (const config::Change& change : changes) {
    text += fmt::format("{} {} {} -> {}", text.ends_with(':') ? "" : ",", change.key, change.before, change.after);
  }
  return wrap(text, cli::page_width(), 2) + "\n";
}

// How far the count of a gate's rows is.
std::function<void(int64_t, int64_t)> counting_progress(const RunSpec& spec, Progress& progress) {
  return [seq_len = spec.seq_len, &progress, timer = Stopwatch()](int64_t done, int64_t all) {
    progress.wait_for(
        fmt::format("counting where the gate sends {} tokens: {:.0f} %, {} to go", format_count(all * seq_len),
                    100.0 * static_cast<double>(done) / static_cast<double>(all),
                    format_clock(timer.seconds() * static_cast<double>(all - done) / static_cast<double>(done))));
  };
}

// The same row measured elsewhere, where this plan is of its size.
std::string published_text(const Config& config, const PlanOptions& options) {
  const config::Published& published = config.benchmark.published;
  if (options.scale || !published.tokens_per_s_per_gpu) return {};
  return wrap(fmt::format("  published: {} tok/s/GPU on {} GPUs ({})",
                          format_count(std::lround(*published.tokens_per_s_per_gpu)), published.gpus.value_or(0),
                          published.machine.value_or("machine not stated")),
              cli::page_width(), 4) +
         "\n";
}

}  // namespace

int run_plan(const PlanOptions& options) {
  const Config config = cli::load_settings(options.file, options.overrides);
  cli::Outputs outputs(cli::Inputs(config, cli::file_of_row(options.file)), options.overwrite);
  std::optional<cli::OutputFile> json;
  if (options.json) {
    cli::outlive_readers();
    json.emplace(outputs.file(*options.json, "--json", "command line"), options.overwrite);
  }
  const int ranks = cli::checked_ranks(options.ranks.value_or(options.profile == "cpu" ? 1 : ranks_of(config)));
  const std::optional<Scale> scale = options.scale ? cli::scale_named(*options.scale) : std::nullopt;
  ScaledConfig scaled = scale_config(config, scale, ranks);
  // As sluice bench times it.
  if (options.profile == "cpu") take_published_precision(scaled.config, scale, cpu::has_bf16_dot());
  const int threads = static_cast<int>(config.runtime.threads.value_or(usable_cores()));
  cli::warn_of_unread_fields(config);
  Progress progress(stderr, cli::watched_width(), "");
  if (options.profile == "cpu") progress.wait_for("measuring the machine");
  const Profile profile = find_profile(options.profile, ranks, threads, scaled.config.runtime.dtype);
  const RunSpec spec = resolve_for(scaled.config, ranks, profile);

  Pool pool(usable_cores());
  count_gate(spec, pool, counting_progress(spec, progress));
  progress.wait_for(fmt::format("planning {} rank{}", spec.mesh.world, spec.mesh.world == 1 ? "" : "s"));
  const Plan plan = make_plan(spec, profile, Detail::memory_peaks);
  progress.wait_for("planning what else one could do");
  const Advice advice = advise(scaled.config, plan, pool);
  progress.finish();
  cli::print(list_changes(scaled.changes) + render(plan, advice, cli::page_width()) +
             published_text(scaled.config, options));
  if (json) json->write(to_json(plan, advice));
  return plan.fits() ? 0 : 1;
}

}  // namespace sluice
