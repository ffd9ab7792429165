#include "training/benchmark.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "base/clock.h"
#include "base/text.h"
#include "model/family.h"
#include "trainer/features.h"
#include "trainer/make_dataset.h"
#include "trainer/profiler_window.h"
#include "training/rank_results.h"
#include "training/session.h"
#include "training/yardstick.h"

namespace sluice {
namespace {

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

// One step from barrier to barrier: as long as the slowest rank's.
double timed_step(Trainer& trainer, int64_t step, StepResult& result) {
  Backend& backend = trainer.context().backend();
  backend.synchronize();
  trainer.mesh().world.barrier(trainer.context().compute(), "begin of a timed step");
  const Stopwatch watch;
  result = trainer.step(step);
  backend.synchronize();
  trainer.mesh().world.barrier(trainer.context().compute(), "end of a timed step");
  return watch.seconds();
}

// Runs the steps on one rank; rank 0 writes the row, and alone needs the yardstick.
class RankRun {
 public:
  RankRun(Trainer& trainer, BenchmarkRow& row, Yardstick* yardstick, Progress& progress)
      : trainer_(trainer), row_(row), yardstick_(yardstick), progress_(progress) {}

  RankResult run(bool profile_ops, const config::Benchmark& keys) {
    ProfilerWindow profiler(trainer_, keys);
    LoadMeter load(trainer_.context().backend(), trainer_.spec().model.num_experts);
    // To look at the load takes time: not in a timed step, unless there are no others.
    const int64_t looked_at = std::max<int64_t>(row_.warmup_steps - 1, 0);
    for (int64_t step = 0; step < trainer_.spec().steps; ++step) {
      std::optional<ObserverScope> watching;
      if (step == looked_at) watching.emplace(trainer_.context(), load);
      if (step == row_.warmup_steps && first()) yardstick_->measure_again(Yardstick::Run::goes_on);
      profiler.before(step);
      one_step(step);
      profiler.after(step);
    }
    if (first()) row_.kernels = trainer_.context().backend().kernels().uses();
    if (profile_ops) profile(trainer_.spec().steps);
    return {.load_factor = load.load_factor(), .memory = trainer_.ledger().peak(), .grown = trainer_.runtime().grown()};
  }

 private:
  bool first() const { return trainer_.mesh().world.world_rank() == 0; }

  void one_step(int64_t step) {
    StepResult result;
    const double seconds = timed_step(trainer_, step, result);
    if (!first()) return;
    row_.losses.push_back(result.loss);
    if (result.mtp_loss) row_.mtp_losses.push_back(*result.mtp_loss);
    if (step >= row_.warmup_steps) row_.step_seconds.push_back(seconds);
    const RunSpec& spec = trainer_.spec();
    spent_ += seconds;
    yardstick_->check(seconds, Yardstick::Run::goes_on);
    progress_.show({.step = step + 1,
                    .steps = spec.steps,
                    .loss = result.loss,
                    .mtp_loss = result.mtp_loss,
                    .tokens_per_s = static_cast<double>(spec.tokens_per_step()) / (seconds * spec.mesh.world),
                    .precision = precision_name(spec.dtype),
                    .mfu = yardstick_->mfu(seconds),
                    .roofline = yardstick_->roofline_share(seconds),
                    .elapsed_seconds = spent_,
                    .own_steps = step + 1});
  }

  // All ranks take the step; the first one's operations are timed.
  void profile(int64_t step) {
    OpProfiler profiler(trainer_.context().backend());
    StepResult result;
    const ObserverScope watching(trainer_.context(), profiler);
    const double seconds = timed_step(trainer_, step, result);
    if (first()) row_.ops = profiler.profile(seconds);
  }

  Trainer& trainer_;
  BenchmarkRow& row_;
  Yardstick* yardstick_;
  Progress& progress_;
  double spent_ = 0;
};

// How a benchmark of this scale is made to need less memory.
std::string smaller_than(const std::string& scale) {
  if (scale == "full") return "run it at --scale laptop";
  return scale == "laptop" ? "run it at --scale tiny" : kSmallerBatch;
}

}  // namespace

double BenchmarkRow::median_seconds() const {
  return median(step_seconds);
}

double BenchmarkRow::spread() const {
  if (step_seconds.empty()) return 0;
  const auto [fastest, slowest] = std::minmax_element(step_seconds.begin(), step_seconds.end());
  return (*slowest - *fastest) / median_seconds();
}

double BenchmarkRow::tokens_per_s_per_rank() const {
  return static_cast<double>(layout.gbs) * static_cast<double>(layout.seq_len) /
         (median_seconds() * static_cast<double>(layout.ranks));
}

double BenchmarkRow::model_tflops_per_rank() const {
  return tokens_per_s_per_rank() * gflop_per_token * 1e-3;
}

std::string recompute_name(const Config& config) {
  const config::Recompute recompute = config.recompute();
  if (recompute.full) return "full";
  std::string names;
  for (const RecomputePart piece : recompute.pieces) {
    names += (names.empty() ? "" : " ") + std::string(config::word(piece));
  }
  return names.empty() ? "none" : names;
}

std::string roofline_note(const BenchmarkRow& row) {
  const std::string best = format_duration(row.roofline_seconds);
  const std::string share = format_share(row.roofline_seconds / row.median_seconds(), 1, "");
  return share.empty() ? fmt::format("faster than its operations' {} with data from memory: caches served it", best)
                       : fmt::format("{} of the speed this step's operations allow at best ({})", share, best);
}

std::string missing_mfu_note(const BenchmarkRow& row) {
  if (!(row.mfu() > 1)) return {};
  return fmt::format(
      "has no MFU: it did {:.1f} GFLOP/s, more than the peak of {:.1f}, which was measured while other "
      "processes were busy or is not this machine's",
      1000 * row.model_tflops_per_rank(), 1000 * row.peak_tflops);
}

std::string describe(const std::vector<RankGrowth>& grown) {
  if (grown.empty()) return {};
  std::set<int> ranks;
  size_t bytes = 0;
  for (const RankGrowth& each : grown) {
    ranks.insert(each.rank);
    bytes += each.growth.bytes;
  }
  const RankGrowth& most = *std::max_element(grown.begin(), grown.end(), [](const RankGrowth& a, const RankGrowth& b) {
    return a.growth.bytes < b.growth.bytes;
  });
  const std::string name = fmt::format("rank {}'s {}", most.rank, most.growth.arena);
  if (grown.size() == 1) return fmt::format("{} by {}", name, format_bytes(bytes));
  return fmt::format("{} arenas of {} rank{} by {} together, the most {} by {}", grown.size(), ranks.size(),
                     ranks.size() == 1 ? "" : "s", format_bytes(bytes), name, format_bytes(most.growth.bytes));
}

BenchmarkRow run_benchmark(const BenchmarkJob& job, const RunSpec& run, MachineInfo& machine, Progress& progress) {
  const Config& config = job.settings;
  RunSpec spec = run;
  spec.further_steps = job.profile_ops ? 1 : 0;
  if (config.benchmark.warmup_steps >= spec.steps) {
    throw user_error("benchmark.warmup_steps {} leaves none of step_scheduler.max_steps {} to time",
                     config.benchmark.warmup_steps, spec.steps);
  }
  LaunchOptions options = job.session ? *job.session : launch_options(config);
  options.hardware = job.hardware;
  const bool speaks = options.first_rank() == 0;
  std::optional<Yardstick> yardstick;
  if (speaks) {
    progress.wait_for("planning the run");
    yardstick.emplace(spec, options, config.benchmark.peak_tflops, machine);
    require_memory(yardstick->forecast(), memory_for(spec, options), smaller_than(job.scale));
    progress.wait_for("getting ready, first step");
  }
  const std::unique_ptr<Dataset> dataset = make_dataset(config, config.dataset, "dataset", spec);

  BenchmarkRow row;
  row.row = config.benchmark.row.value_or("");
  row.model = spec.model.name;
  row.config = job.config;
  row.scale = job.scale;
  row.row_layout = job.row_layout;
  row.changes = job.changes;
  row.precision = precision_name(spec.dtype);
  row.device = config::word(config.runtime.device);
  row.layout = layout_of(spec);
  row.warmup_steps = config.benchmark.warmup_steps;
  row.gflop_per_token = model_flops_per_sequence(spec.model, spec.seq_len) * 1e-9 / static_cast<double>(spec.seq_len);
  row.balance = spec.model.num_experts > 0 ? config::word(config.balance()) : "none";
  row.gate_noise = row.balance == config::word(config::Balance::published) ? spec.gate.noise : 0;
  row.recompute = recompute_name(config);
  row.data = config::word(config.dataset.target);
  row.max_grad_norm = spec.max_norm;
  row.optimizer_state_dtype = spec.optimize ? config::word(config.optimizer.state_dtype) : "none";
  row.layers = spec.model.num_layers;
  row.features = describe_features(spec.stage());
  row.local_shard = spec.local_shard;
  row.unavailable = config::unavailable(config);

  // Of this process's ranks, each written by its own thread.
  const int first_rank = options.first_rank();
  const int own = options.courier == nullptr ? spec.mesh.world : options.courier->self().ranks;
  ProcessResult mine{.threads = options.threads, .ranks = std::vector<RankResult>(static_cast<size_t>(own))};
  std::vector<uint64_t> planned(static_cast<size_t>(own));
  const auto place = [&](int rank) { return static_cast<size_t>(rank - first_rank); };
  const auto keep_plan = [&](const RankPlan& plan) { planned[place(plan.rank)] = plan.ledger.peak(); };
  const auto run_rank = [&](Trainer& trainer) {
    const size_t rank = place(trainer.mesh().world.world_rank());
    if (job.weights != nullptr) job.weights->load(trainer);
    RankRun steps(trainer, row, yardstick ? &*yardstick : nullptr, progress);
    mine.ranks[rank] = steps.run(job.profile_ops, config.benchmark);
    mine.ranks[rank].planned = planned[rank];
  };
  run_session(spec, options, *dataset, run_rank, keep_plan);
  const std::vector<ProcessResult> all = gather(mine, options.courier);
  if (!speaks) return row;
  progress.wait_for("measuring the machine again");

  // Where other processes disturbed the measurements before, this one may be truer.
  yardstick->measure_again(Yardstick::Run::has_ended);
  yardstick->check(row.median_seconds(), Yardstick::Run::has_ended);
  row.peak_tflops = yardstick->peak_flops() * 1e-12;
  row.peak_precision = precision_name(yardstick->forecast().roof.peak_type(spec.dtype));
  row.peak_stated = config.benchmark.peak_tflops.has_value();
  row.roofline_seconds = yardstick->forecast().roofline_seconds;
  if (row.ops) row.ops->roof = yardstick->forecast().roof;
  progress.finish();

  row.threads = 0;
  row.load_factor = 0;
  int rank = 0;
  for (const ProcessResult& process : all) {
    row.threads += process.threads;
    for (const RankResult& result : process.ranks) {
      row.load_factor += result.load_factor / spec.mesh.world;
      row.max_memory_bytes = std::max(row.max_memory_bytes, result.memory);
      row.planned_memory_bytes = std::max(row.planned_memory_bytes, result.planned);
      for (const ArenaGrowth& growth : result.grown) row.grown.push_back({rank, growth});
      ++rank;
    }
  }
  if (options.courier != nullptr) {
    std::set<std::string> hosts;
    for (const Member& member : options.courier->members()) hosts.insert(member.host);
    row.processes = static_cast<int>(all.size());
    row.hosts = static_cast<int>(hosts.size());
  }
  return row;
}

}  // namespace sluice
