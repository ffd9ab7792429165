#include <fmt/format.h>

#include "base/error.h"
#include "config/defaults.h"
#include "config/load.h"

namespace sluice::config {
namespace {

// Of a run without a bound of its own.
constexpr std::int64_t max_steps = static_cast<std::int64_t>(max_count);

// Ends with a user error at the place where `key` was given, if it was.
void check(const Config& config, bool ok, std::string_view key, const std::string& message,
           const std::string& hint = {}) {
  if (ok) return;
  const Origin origin = config.origin(key);
  const std::string where = origin.kind == Origin::Kind::command_line ? "command line" : origin.text;
  throw Error(ErrorKind::user, message).at(where).advise(hint);
}

void check_batches(const Config& config) {
  const StepScheduler& steps = config.step_scheduler;
  const Pipeline& pipeline = config.distributed.pipeline;
  check(config, steps.global_batch_size % steps.local_batch_size == 0, "step_scheduler.global_batch_size",
        fmt::format("global_batch_size {} is not a multiple of local_batch_size {}", steps.global_batch_size,
                    steps.local_batch_size),
        "global_batch_size = local_batch_size x data-parallel ranks x accumulation steps");
  if (config.distributed.pp_size > 1) {
    check(config, steps.local_batch_size % pipeline.pp_microbatch_size == 0, "distributed.pipeline.pp_microbatch_size",
          fmt::format("pp_microbatch_size {} does not divide local_batch_size {}", pipeline.pp_microbatch_size,
                      steps.local_batch_size));
    check(config, pipeline.pp_schedule == ScheduleKind::interleaved || pipeline.virtual_stages.value_or(1) == 1,
          "distributed.pipeline.virtual_stages",
          fmt::format("virtual_stages {} needs an interleaved schedule, pp_schedule is {}",
                      pipeline.virtual_stages.value_or(1), word(pipeline.pp_schedule)),
          "pp_schedule: interleaved1f1b");
  }
  if (config.recipe == Recipe::benchmark) {
    check(config, steps.max_steps.has_value(), "step_scheduler.max_steps", "a benchmark needs step_scheduler.max_steps",
          "max_steps: 10");
    check(config, config.benchmark.warmup_steps < *steps.max_steps, "benchmark.warmup_steps",
          fmt::format("warmup_steps {} leaves none of max_steps {} to time", config.benchmark.warmup_steps,
                      *steps.max_steps));
  }
}

void check_profiler(const Config& config) {
  const Benchmark& benchmark = config.benchmark;
  const std::int64_t start = benchmark.nsys_start.value_or(-1), end = benchmark.nsys_end.value_or(-1);
  if (start < 0) return;
  check(config, end < 0 || start <= end, "benchmark.nsys_end",
        fmt::format("nsys_end {} is before nsys_start {}", end, start));
  check(config, !benchmark.nsys_ranks.empty(), "benchmark.nsys_start",
        fmt::format("nsys_start {} is of no rank", start), "nsys_ranks: [0]");
}

void check_length(const Config& config) {
  const StepScheduler& steps = config.step_scheduler;
  check(config, steps.max_steps || steps.num_epochs, "step_scheduler.max_steps",
        "neither step_scheduler.max_steps nor num_epochs says when the run ends", "max_steps: 1000");
}

void check_learning_rate(const Config& config) {
  const LrScheduler& schedule = config.lr_scheduler;
  const double peak = schedule.max_lr.value_or(config.optimizer.lr);
  const char* name = schedule.max_lr ? "max_lr" : "lr";
  check(config, schedule.min_lr <= peak, "lr_scheduler.min_lr",
        fmt::format("min_lr {} is above {} {}", schedule.min_lr, name, peak));
  check(config, schedule.init_lr.value_or(0) <= peak, "lr_scheduler.init_lr",
        fmt::format("init_lr {} is above {} {}", schedule.init_lr.value_or(0), name, peak));
  if (schedule.lr_decay_style == LrDecay::wsd) {
    check(config, schedule.wsd_decay_steps.has_value(), "lr_scheduler.lr_decay_style",
          "lr_decay_style wsd needs wsd_decay_steps", "wsd_decay_steps: 100");
    check(config, schedule.lr_wsd_decay_style.has_value(), "lr_scheduler.lr_decay_style",
          "lr_decay_style wsd needs lr_wsd_decay_style", "lr_wsd_decay_style: linear");
  }
  check_schedule_steps(config, config.step_scheduler.max_steps.value_or(max_steps));
}

void check_weight_decay(const Config& config) {
  const LrScheduler& schedule = config.lr_scheduler;
  const double start = schedule.start_wd.value_or(config.optimizer.weight_decay);
  const double end = schedule.end_wd.value_or(config.optimizer.weight_decay);
  check(config, start <= end, schedule.start_wd ? "lr_scheduler.start_wd" : "lr_scheduler.end_wd",
        fmt::format("weight decay starts at {} and ends at {}: it can only rise", start, end));
  check(config, start == end || schedule.wd_incr_style != WeightDecayRamp::constant, "lr_scheduler.wd_incr_style",
        fmt::format("wd_incr_style constant, and weight decay goes from {} to {}", start, end),
        "wd_incr_style: linear");
}

void check_optimizer(const Config& config) {
  const Optimizer& optimizer = config.optimizer;
  check(config, optimizer.betas.size() == 2 && optimizer.betas[0] < 1 && optimizer.betas[1] < 1, "optimizer.betas",
        "optimizer.betas are two numbers, from 0 and below 1", "betas: [0.9, 0.95]");
  check_learning_rate(config);
  check_weight_decay(config);
}

void check_dataset(const Config& config, const Dataset& dataset, const std::string& section) {
  const bool bytes = dataset.target == DatasetKind::bytes;
  check(config, bytes == dataset.path.has_value(), section + (bytes ? "._target_" : ".path"),
        bytes ? fmt::format("{}._target_ bytes needs {}.path", section, section)
              : fmt::format("{}.path goes with _target_ bytes, which is {}", section, word(dataset.target)));
  check(config, !bytes || dataset.vocab_size.value_or(256) >= 256, section + ".vocab_size",
        fmt::format("vocab_size {} is too small for bytes, which need 256", dataset.vocab_size.value_or(0)));
}

void check_model(const Config& config) {
  const HubConfig& hub = config.model.config;
  check(config, hub.pretrained_model_name_or_path || hub.overrides.find("model_type") != nullptr, "model.config",
        "model.config names no model",
        "give pretrained_model_name_or_path (a hub id or a directory), or model_type and the other fields");
  check(
      config, config.model.backend.fake_gate_noise == 0 || config.balance() == Balance::published,
      "model.backend.fake_gate_noise",
      fmt::format("fake_gate_noise belongs to the published gate, and tokens are routed by {}", word(config.balance())),
      "fake_balanced_gate: true");
}

}  // namespace

void check_schedule_steps(const Config& config, std::int64_t steps, std::optional<std::int64_t> decay_before) {
  const LrScheduler& schedule = config.lr_scheduler;
  if (schedule.lr_decay_style == LrDecay::constant) return;
  const std::int64_t warmup = warmup_steps(config, steps);
  const std::int64_t decay = schedule.lr_decay_steps.value_or(decay_before.value_or(steps));
  check(config, warmup < decay, "lr_scheduler.lr_warmup_steps",
        fmt::format("lr_warmup_steps {} leaves none of the {} steps to decay over", warmup, decay),
        "fewer of them, or a longer run (step_scheduler.max_steps, num_epochs) or decay (lr_scheduler.lr_decay_steps)");
}

void validate(const Config& config) {
  check_length(config);
  check_batches(config);
  check_profiler(config);
  check_optimizer(config);
  check_dataset(config, config.dataset, "dataset");
  check_dataset(config, config.validation_dataset, "validation_dataset");
  check(config, config.dataset.target != DatasetKind::none, "dataset._target_", "dataset._target_ names no data",
        "mock draws random tokens, bytes reads files");
  check_model(config);
}

}  // namespace sluice::config
