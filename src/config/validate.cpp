#include <fmt/format.h>

#include "base/error.h"
#include "config/load.h"

namespace sluice::config {
namespace {

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
    check(config, pipeline.pp_schedule == Schedule::interleaved || pipeline.virtual_stages.value_or(1) == 1,
          "distributed.pipeline.virtual_stages",
          fmt::format("virtual_stages {} needs an interleaved schedule, pp_schedule is {}",
                      pipeline.virtual_stages.value_or(1), word(pipeline.pp_schedule)),
          "pp_schedule: interleaved1f1b");
  }
  if (config.recipe == Recipe::benchmark) {
    check(config, config.benchmark.warmup_steps < steps.max_steps, "benchmark.warmup_steps",
          fmt::format("warmup_steps {} leaves none of max_steps {} to time", config.benchmark.warmup_steps,
                      steps.max_steps));
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

void check_optimizer(const Config& config) {
  const Optimizer& optimizer = config.optimizer;
  const LrScheduler& schedule = config.lr_scheduler;
  check(config, optimizer.betas.size() == 2 && optimizer.betas[0] < 1 && optimizer.betas[1] < 1, "optimizer.betas",
        "optimizer.betas are two numbers, from 0 and below 1", "betas: [0.9, 0.95]");
  check(config, optimizer.target == OptimizerKind::adamw || optimizer.weight_decay == 0, "optimizer.weight_decay",
        fmt::format("Adam with weight_decay {} adds the decay to the gradient, which sluice does not do",
                    optimizer.weight_decay),
        "AdamW decays the weights themselves: _target_: torch.optim.AdamW");
  check(config, schedule.min_lr <= optimizer.lr, "lr_scheduler.min_lr",
        fmt::format("min_lr {} is above lr {}", schedule.min_lr, optimizer.lr));
  const std::int64_t decay_steps = schedule.lr_decay_steps.value_or(config.step_scheduler.max_steps);
  check(config, schedule.lr_decay_style == DecayStyle::constant || schedule.lr_warmup_steps < decay_steps,
        "lr_scheduler.lr_warmup_steps",
        fmt::format("lr_warmup_steps {} leaves none of the {} steps to decay over", schedule.lr_warmup_steps,
                    decay_steps),
        "fewer of them, or a longer run (step_scheduler.max_steps) or decay (lr_scheduler.lr_decay_steps)");
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

// Whatever the command: a file that asks for them is for a run that would be lost without them.
void check_checkpoint(const Config& config) {
  check(config, !config.checkpoint.enabled, "checkpoint.enabled",
        "checkpoint.enabled: checkpoints are not available yet", "set checkpoint.enabled: false");
}

}  // namespace

void validate(const Config& config) {
  check_batches(config);
  check_profiler(config);
  check_optimizer(config);
  check_dataset(config, config.dataset, "dataset");
  check_dataset(config, config.validation_dataset, "validation_dataset");
  check(config, config.dataset.target != DatasetKind::none, "dataset._target_", "dataset._target_ names no data",
        "mock draws random tokens, bytes reads files");
  check_model(config);
  check_checkpoint(config);
}

}  // namespace sluice::config
