#include "trainer/scale_config.h"

#include <algorithm>
#include <numeric>

#include "model/family.h"
#include "trainer/run_spec.h"

namespace sluice {
namespace {

constexpr int64_t micro_batches_of_a_step = 8;
constexpr int64_t warmup_steps = 2;
constexpr int64_t timed_steps = 5;

// The largest divisor of n that is at most `limit` and divides `other` too (0: any does).
int64_t largest_divisor(int64_t n, int64_t limit, int64_t other = 0) {
  for (int64_t d = std::min(n, limit); d > 1; --d) {
    if (n % d == 0 && other % d == 0) return d;
  }
  return 1;
}

// Sets keys in the name of a rule; what the command line says stays.
class Rule {
 public:
  Rule(ScaledConfig& scaled, const std::string& name) : scaled_(scaled), origin_(config::Origin::rule(name)) {}

  const Config& config() const { return scaled_.config; }
  bool by_hand(const std::string& key) const { return config().origin(key).kind == config::Origin::Kind::command_line; }
  void set(const std::string& key, const std::string& before, const std::string& after) {
    if (before == after || by_hand(key)) return;
    config::set(scaled_.config, key, after, origin_);
    scaled_.changes.push_back({key, before, after});
  }
  void set(const std::string& key, int64_t before, int64_t after) {
    set(key, std::to_string(before), std::to_string(after));
  }
  void clear(const std::string& key, bool is_set, const std::string& before) {
    if (is_set) set(key, before, "null");
  }

 private:
  ScaledConfig& scaled_;
  config::Origin origin_;
};

// Degrees that do not depend on the model.
void fit_stages(Rule& rule, int64_t ranks) {
  const config::Distributed& d = rule.config().distributed;
  rule.set("distributed.tp_size", d.tp_size, 1);
  rule.set("distributed.cp_size", d.cp_size, 1);
  rule.set("distributed.pp_size", d.pp_size, largest_divisor(ranks, d.pp_size));
  rule.clear("distributed.dp_size", d.dp_size.has_value(), std::to_string(d.dp_size.value_or(0)));
}

void fit_groups(Rule& rule, int64_t ranks, int64_t num_experts) {
  const config::Distributed& d = rule.config().distributed;
  const int64_t stage_ranks = std::max<int64_t>(1, ranks / d.pp_size);
  const int64_t dp = std::max<int64_t>(1, stage_ranks / (d.tp_size * d.cp_size));
  rule.set("distributed.ep_size", d.ep_size, largest_divisor(stage_ranks, d.ep_size, num_experts));
  rule.set("distributed.dp_replicate_size", d.dp_replicate_size, largest_divisor(dp, d.dp_replicate_size));
}

void fit_chunks(Rule& rule, int64_t layers) {
  const config::Distributed& d = rule.config().distributed;
  if (d.pp_size == 1 || !d.pipeline.virtual_stages) return;
  const int64_t vp = std::clamp<int64_t>(layers / d.pp_size, 1, *d.pipeline.virtual_stages);
  rule.set("distributed.pipeline.virtual_stages", *d.pipeline.virtual_stages, vp);
  if (vp == 1 && d.pipeline.pp_schedule == ScheduleKind::interleaved) {
    rule.set("distributed.pipeline.pp_schedule", std::string(config::word(d.pipeline.pp_schedule)), "1f1b");
  }
}

// A row that states layers_per_stage keeps as many stages on a rank as it has with all its layers.
void keep_stages(Rule& rule, const Config& row) {
  const config::Pipeline& pipeline = row.distributed.pipeline;
  const std::string layers_per_stage = "distributed.pipeline.layers_per_stage";
  if (rule.config().distributed.pp_size == 1 || pipeline.virtual_stages || !pipeline.layers_per_stage ||
      rule.by_hand(layers_per_stage)) {
    return;
  }
  const int chunks = chunks_per_rank(pipeline, model_of(row).num_layers, row.distributed.pp_size);
  rule.set(layers_per_stage, std::to_string(*pipeline.layers_per_stage), "null");
  rule.set("distributed.pipeline.virtual_stages", "null", std::to_string(chunks));
}

// Writes the scaled model and sequence down as overrides of the configuration.
void scale_sizes(Rule& rule, Scale scale, int64_t row_ep) {
  const Config& config = rule.config();
  std::vector<std::string> keep;
  for (const auto& [key, origin] : config.origins) {
    constexpr std::string_view section = "model.config.";
    if (key.starts_with(section) && rule.by_hand(key)) keep.push_back(key.substr(section.size()));
  }
  if (rule.by_hand("dataset.seq_len")) keep.emplace_back("seq_len");
  const config::Distributed& d = config.distributed;
  const int64_t stages = d.pp_size == 1 ? 1 : d.pp_size * d.pipeline.virtual_stages.value_or(1);
  const ScaledModel scaled =
      scale_model(model_of(config), config.dataset.seq_len, scale, {.ep = row_ep, .min_layers = stages, .keep = keep});
  for (const ScaleChange& change : scaled.changes) {
    const bool of_data = change.key == "seq_len";
    rule.set((of_data ? "dataset." : "model.config.") + change.key, change.old_value, change.new_value);
  }
  if (const std::optional<int64_t> tokens = config.dataset.vocab_size) {
    rule.set("dataset.vocab_size", *tokens, std::min(*tokens, model_of(config).vocab_size));
  }
}

void scale_batch(Rule& rule, int64_t ranks, int64_t micro_batch) {
  const Config& config = rule.config();
  const config::Distributed& d = config.distributed;
  const int64_t dp = std::max<int64_t>(1, ranks / (d.pp_size * d.tp_size * d.cp_size));
  const int64_t per_rank = std::max<int64_t>(1, micro_batches_of_a_step / dp);
  // One local batch holds a whole number of micro-batches; without a pipeline it is one.
  const int64_t passes =
      d.pp_size == 1 ? 1 : largest_divisor(per_rank, config.step_scheduler.local_batch_size / micro_batch);
  rule.set("step_scheduler.local_batch_size", config.step_scheduler.local_batch_size, passes * micro_batch);
  const int64_t local = config.step_scheduler.local_batch_size;
  const int64_t accumulation = std::max<int64_t>(1, per_rank * micro_batch / local);
  rule.set("step_scheduler.global_batch_size", config.step_scheduler.global_batch_size, local * dp * accumulation);
}

void scale_steps(Rule& rule, int64_t warmup, int64_t timed) {
  const config::Benchmark& benchmark = rule.config().benchmark;
  rule.set("benchmark.warmup_steps", benchmark.warmup_steps, warmup);
  const auto& steps = rule.config().step_scheduler.max_steps;
  rule.set("step_scheduler.max_steps", steps ? std::to_string(*steps) : "null",
           std::to_string(benchmark.warmup_steps + timed));
  rule.clear("benchmark.peak_tflops", benchmark.peak_tflops.has_value(),
             fmt::format("{}", benchmark.peak_tflops.value_or(0)));
}

}  // namespace

ScaledConfig scale_config(const Config& row, std::optional<Scale> scale, int ranks) {
  ScaledConfig result{.config = row, .changes = {}};
  const int64_t row_ep = row.distributed.ep_size * row.benchmark.local_shard;
  const int64_t micro_batch =
      row.distributed.pp_size > 1 ? row.distributed.pipeline.pp_microbatch_size : row.step_scheduler.local_batch_size;
  Rule of_ranks(result, fmt::format("{} rank{}", ranks, ranks == 1 ? "" : "s"));
  fit_stages(of_ranks, ranks);
  if (scale) {
    Rule of_scale(result, fmt::format("scale {}", name_of(*scale)));
    keep_stages(of_scale, row);
    scale_sizes(of_scale, *scale, row_ep);
    scale_batch(of_scale, ranks, micro_batch);
    scale_steps(of_scale, warmup_steps, timed_steps);
  }
  const ModelConfig model = model_of(result.config);
  fit_groups(of_ranks, ranks, model.num_experts);
  fit_chunks(of_ranks, model.num_layers);
  return result;
}

ScaledConfig scale_within_layout(const Config& row, std::optional<Scale> scale) {
  ScaledConfig result{.config = row, .changes = {}};
  if (!scale) return result;
  Rule rule(result, fmt::format("scale {}", name_of(*scale)));
  keep_stages(rule, row);
  scale_sizes(rule, *scale, row.distributed.ep_size * row.benchmark.local_shard);
  if (has_quick_step(resolve(result.config, ranks_of(row)))) {
    scale_steps(rule, 1, 2);
  } else {
    scale_steps(rule, 0, 1);
  }
  return result;
}

bool has_quick_step(const RunSpec& spec) {
  constexpr int64_t quick = int64_t{1} << 18;  // tokens through a layer
  return spec.tokens_per_step() * spec.model.num_layers <= quick;
}

int ranks_of(const Config& config) {
  if (config.benchmark.published.gpus) return static_cast<int>(*config.benchmark.published.gpus);
  const config::Distributed& d = config.distributed;
  const auto real = [](int64_t degree) { return static_cast<double>(degree); };
  // Before anything is multiplied that may not fit.
  const double others = real(d.pp_size) * real(d.tp_size) * real(d.cp_size);
  const double most = others * (d.dp_size ? real(*d.dp_size) : real(d.dp_replicate_size) * real(d.ep_size));
  if (most > 1e9) {
    throw user_error("pp_size {} x tp_size {} x cp_size {} with {} are too many ranks", d.pp_size, d.tp_size, d.cp_size,
                     d.dp_size ? fmt::format("dp_size {}", *d.dp_size)
                               : fmt::format("dp_replicate_size {} and ep_size {}", d.dp_replicate_size, d.ep_size))
        .advise("lower them");
  }
  if (d.dp_size) return static_cast<int>(*d.dp_size * d.pp_size * d.tp_size * d.cp_size);
  return static_cast<int>(d.pp_size * std::lcm(d.tp_size * d.cp_size * d.dp_replicate_size, d.ep_size));
}

}  // namespace sluice
