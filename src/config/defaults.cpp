#include "config/defaults.h"

#include <algorithm>
#include <cctype>
#include <string>
#include <tuple>

#include "config/codec.h"
#include "config/schema.h"

namespace sluice::config {
namespace {

constexpr const char* nemo = "NeMo's default";
constexpr const char* torch = "torch's default";
constexpr const char* benchmark = "NeMo's benchmark";

bool is_lower_case(std::string_view word) {
  return std::ranges::none_of(word, [](unsigned char c) { return std::isupper(c) != 0; });
}

// The last part of a dotted path.
std::string_view class_of(std::string_view word) {
  const std::size_t dot = word.find_last_of(".:");
  return dot == std::string_view::npos ? word : word.substr(dot + 1);
}

std::int64_t tenth(std::int64_t steps) {
  return std::min<std::int64_t>(1000, steps / 10);
}

class Defaults {
 public:
  explicit Defaults(Config& config) : config_(config), schema_(bind(config)) {}

  void apply() {
    forget();
    find_recipe();
    if (config_.program == Program::nemo) common();
    precision();
    optimizer();
    if (config_.program == Program::nemo) config_.recipe == Recipe::train ? training() : benchmarking();
    dataset("dataset", config_.dataset);
    dataset("validation_dataset", config_.validation_dataset);
    model();
  }

 private:
  const std::string& word(std::string_view key) const {
    static const std::string none;
    const auto found = config_.origins.find(key);
    return found == config_.origins.end() ? none : found->second.word;
  }

  void assign(const std::string& key, const std::string& text, std::string why) {
    schema_.find(key)->assign(parse_yaml(text, key));
    config_.origins[key] = {Origin::Kind::program, std::move(why)};
  }
  void set(const std::string& key, const std::string& text, std::string why = nemo) {
    if (!config_.is_set(key)) assign(key, text, std::move(why));
  }
  // The same for a key whose null in the file is as good as nothing.
  void set_over_null(const std::string& key, const std::string& text, std::string why) {
    const bool null = config_.origin(key).kind == Origin::Kind::file && schema_.find(key)->write() == "null";
    if (null || !config_.is_set(key)) assign(key, text, std::move(why));
  }
  // Even where the file gives another value, which is said.
  void overrule(const std::string& key, const std::string& text, const std::string& reason) {
    const Origin given = config_.origin(key);
    if (given.kind == Origin::Kind::command_line || given.kind == Origin::Kind::rule) {
      std::erase_if(config_.ignored, [&](const IgnoredKey& other) { return other.key == key; });
      return;
    }
    if (given.kind == Origin::Kind::file) config_.ignored.push_back({key, given.text, reason});
    assign(key, text, reason);
  }

  // Takes back what an earlier call set.
  void forget() {
    std::erase_if(config_.origins, [&](const auto& entry) {
      const auto& [key, origin] = entry;
      if (origin.kind != Origin::Kind::program) return false;
      constexpr std::string_view open = "model.config.";
      if (const Field* field = schema_.find(key)) {
        field->assign(preset_of(*field));
      } else if (key.starts_with(open)) {
        std::erase_if(config_.model.config.overrides.fields,
                      [&](const HubField& other) { return other.key == key.substr(open.size()); });
      }
      return true;
    });
  }

  void find_recipe() {
    const auto in_file = [&](const char* key) { return config_.origin(key).kind == Origin::Kind::file; };
    const auto names_nemo = [](const auto& entry) { return entry.second.word.starts_with("nemo_automodel."); };
    config_.program = Program::sluice;
    if (config_.is_set("recipe")) {
      if (class_of(word("recipe")).ends_with("RecipeForNextTokenPrediction")) config_.program = Program::nemo;
    } else if (in_file("benchmark.warmup_steps") || in_file("benchmark.peak_tflops")) {
      // NeMo's older files were named on the command line of the recipe's own program.
      config_.program = Program::nemo;
      assign("recipe", "benchmark", "the file times a benchmark");
    } else if (std::ranges::any_of(config_.origins, names_nemo)) {
      config_.program = Program::nemo;
      assign("recipe", "train", "the file names NeMo's classes");
    }
  }

  void common() {
    set("seed", "42");
    set("step_scheduler.global_batch_size", "32");
    set("step_scheduler.local_batch_size", "1");
    set("dist_env.timeout_minutes", "1");
    set("model.aux_loss_of_config", "true");
  }

  void training() {
    StepScheduler& steps = config_.step_scheduler;
    set("step_scheduler.max_steps", "null", "NeMo's default: what num_epochs have");
    const bool endless = class_of(word("dataset._target_")).starts_with("MockIterableDataset");
    if (!config_.is_set("step_scheduler.num_epochs") || !steps.num_epochs) {
      const bool ten = endless || !steps.max_steps;
      assign("step_scheduler.num_epochs", ten ? "10" : "null", ten ? nemo : "NeMo's default: what max_steps take");
    }
    set("checkpoint.checkpoint_dir", "checkpoints");
    set("checkpoint.save_consolidated", "final");
    set("checkpoint.is_async", "false");
    set("checkpoint.max_recent_checkpoints", "null");
    set("step_scheduler.validate_on_checkpoint", "true");
    set("step_scheduler.save_checkpoint_every_epoch", "true");
    // The command line takes clipping away by the section (Loader::clear).
    if (word("clip_grad_norm") != "null") set("clip_grad_norm.max_norm", "1");
    if (has_section("lr_scheduler")) schedule();
  }

  bool has_section(std::string_view name) const {
    return std::ranges::any_of(config_.origins, [&](const auto& entry) {
      return entry.second.given() && (entry.first == name || parent(entry.first) == name);
    });
  }

  void schedule() {
    const double peak = config_.optimizer.lr;
    // An empty section is one.
    std::erase_if(config_.ignored, [](const IgnoredKey& other) { return other.key == "lr_scheduler"; });
    set("lr_scheduler.lr_decay_style", "cosine");
    set_over_null("lr_scheduler.lr_warmup_steps",
                  steps_are_known() ? std::to_string(tenth(*config_.step_scheduler.max_steps)) : "null",
                  "NeMo's default: a tenth of the run, at most 1000");
    set_over_null("lr_scheduler.init_lr", write_real(0.1 * peak), "NeMo's default: 0.1 lr");
    set("lr_scheduler.min_lr", write_real(0.01 * peak), "NeMo's default: 0.01 lr");
  }

  // Whether the run surely has max_steps, whatever its data and ranks.
  bool steps_are_known() const {
    const auto& [max_steps, epochs] = std::tie(config_.step_scheduler.max_steps, config_.step_scheduler.num_epochs);
    if (!max_steps || !epochs) return max_steps.has_value();
    const Dataset& data = config_.dataset;
    if (data.target != DatasetKind::mock) return false;
    if (!data.num_samples) return true;
    const auto real = [](std::int64_t count) { return static_cast<double>(count); };
    const double each = data.num_samples_are == SampleUnit::batches ? real(config_.step_scheduler.local_batch_size) : 1;
    return real(*data.num_samples) * each * real(*epochs) >=
           real(*max_steps) * real(config_.step_scheduler.global_batch_size);
  }

  void benchmarking() {
    for (const Field& field : schema_.fields) {
      if (parent(field.key) != "lr_scheduler") continue;
      overrule(field.key, field.preset, "NeMo's benchmark has no schedule");
    }
    overrule("clip_grad_norm.max_norm", "null", "NeMo's benchmark does not clip");
    set("model.gate_bias_update_factor", "0", benchmark);
    set("checkpoint.enabled", "false", benchmark);
  }

  // Weights that a file wants in bf16 are so on every device.
  void precision() {
    const std::string& type = config_.model.torch_dtype;
    if (type.starts_with("bf")) set("runtime.dtype", "bf16", "model.torch_dtype " + type);
  }

  void optimizer() {
    const std::string& named = word("optimizer._target_");
    const bool of_torch = named.starts_with("torch.");
    const bool path = of_torch || named.starts_with("nemo_automodel.") || named.starts_with("transformer_engine.");
    const bool by_recipe = config_.program == Program::nemo && !path && is_lower_case(named);
    if (!path && !by_recipe) return;
    const char* whose = of_torch ? torch : nemo;
    const bool coupled = config_.optimizer.target == OptimizerKind::adam;
    set("optimizer.lr", of_torch ? "0.001" : "0.0001", whose);
    set("optimizer.betas", "[0.9, 0.999]", whose);
    set("optimizer.eps", "1e-08", whose);
    set("optimizer.weight_decay", of_torch && coupled ? "0" : "0.01", whose);
    set("optimizer.decay_parameters", "all", whose);
    // torch's optimizers keep moments as wide as the weights; those of Transformer Engine have fp32 masters.
    const bool wide = config_.model.torch_dtype.ends_with("32");
    const std::string_view name = class_of(named);
    if (!wide && !name.starts_with("FusedAdam") && name != "fused_adam") {
      set("optimizer.state_dtype", "weights", "torch.optim: as the weights");
    }
  }

  void dataset(const std::string& section, const Dataset& data) {
    const std::string_view name = class_of(word(section + "._target_"));
    const bool endless = name.starts_with("MockIterableDataset");
    if (data.target != DatasetKind::mock || (!endless && !name.starts_with("MockPretrainingDataset"))) return;
    set(section + ".seq_len", endless ? "1024" : "512");
    set(section + ".num_samples", endless ? "1000000" : "100000");
    if (endless) set(section + ".num_samples_are", "batches", "NeMo's MockIterableDataset counts batches");
    // Its benchmark takes the model's vocabulary.
    const bool timed = config_.recipe == Recipe::benchmark;
    const int tokens = endless ? 1024 : 32000;
    const HubField* all = config_.model.config.overrides.find("vocab_size");
    // Where the model has fewer NeMo's own run would fail; ours has the model's.
    const bool fewer = all != nullptr && all->json.find_first_not_of("0123456789") == std::string::npos &&
                       std::stod(all->json) < tokens;
    if (!timed && !fewer) set(section + ".vocab_size", std::to_string(tokens));
  }

  void model() {
    if (config_.model.target == ModelSource::from_pretrained) {
      set("model.load_weights", "true", "model._target_ from_pretrained");
    }
    struct Family {
      std::string_view config_class;
      const char* model_type;
    };
    constexpr Family families[] = {{"LlamaConfig", "llama"},
                                   {"Qwen3Config", "qwen3"},
                                   {"Qwen3MoeConfig", "qwen3_moe"},
                                   {"DeepseekV3Config", "deepseek_v3"},
                                   {"GptOssConfig", "gpt_oss"}};
    for (const Family& family : families) {
      const std::string key = "model.config.model_type";
      if (class_of(word("model.config._target_")) != family.config_class || config_.is_set(key)) continue;
      config_.model.config.overrides.set("model_type", json_quote(family.model_type));
      config_.origins[key] = {Origin::Kind::program, "model.config._target_ " + std::string(family.config_class)};
    }
  }

  Config& config_;
  Schema schema_;
};

}  // namespace

void apply_program_defaults(Config& config) {
  Defaults(config).apply();
}

std::int64_t warmup_steps(const Config& config, std::int64_t steps) {
  // Of NeMo's benchmark it is none, whatever the length.
  const bool nemos =
      config.recipe == Recipe::train && config.origin("lr_scheduler.lr_warmup_steps").kind == Origin::Kind::program;
  const auto& given = config.lr_scheduler.lr_warmup_steps;
  return given && !nemos ? *given : tenth(steps);
}

}  // namespace sluice::config
