#include "training/resume.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "model/cards.h"

namespace sluice {
namespace {

constexpr std::string_view kModelFields = "model.config.";
constexpr const char* kValidation = "validation_dataset";

// Keys, or with a dot at the end all keys of a section.
constexpr std::array kMayDiffer = {
    // length
    "step_scheduler.max_steps",
    "step_scheduler.num_epochs",
    "step_scheduler.max_minutes",
    "step_scheduler.preemption_signal",
    // learning rate; the schedule's shape stays
    "optimizer.lr",
    "lr_scheduler.max_lr",
    "lr_scheduler.min_lr",
    "lr_scheduler.lr_decay_steps",
    "lr_scheduler.wd_incr_steps",
    // what is logged, validated and saved
    "logging.",
    "checkpoint.",
    "step_scheduler.ckpt_every_steps",
    "step_scheduler.save_checkpoint_every_epoch",
    "step_scheduler.val_every_steps",
    "step_scheduler.validate_on_checkpoint",
    "bad_steps.",
    "benchmark.peak_tflops",
    "benchmark.warmup_steps",
    // layout, micro-batch, recomputation
    "distributed.",
    "dist_env.",
    "step_scheduler.local_batch_size",
    "memory.",
    // device and threads
    "runtime.device",
    "runtime.threads",
    "runtime.async_comm",
    "runtime.deterministic",
    "runtime.watchdog_seconds",
    // only where a run begins
    "model.load_weights",
    "model._target_",
};

bool may_differ(std::string_view key) {
  return std::ranges::any_of(
      kMayDiffer, [&](std::string_view each) { return each.ends_with('.') ? key.starts_with(each) : key == each; });
}

std::string value_of(const std::map<std::string, std::string>& values, const std::string& key) {
  const auto found = values.find(key);
  return found == values.end() ? "nothing" : found->second;
}

// Masters are fp32 with both, and moments too.
bool same_masters(const Manifest& checkpoint, const Manifest& run) {
  const auto wide = [](const Manifest& manifest) {
    const std::string dtype = value_of(manifest.settings, "runtime.dtype");
    return (dtype == "f32" || dtype == "bf16") && value_of(manifest.settings, "optimizer.state_dtype") == "fp32";
  };
  return wide(checkpoint) && wide(run);
}

void add_differences(const std::map<std::string, std::string>& before, const std::map<std::string, std::string>& after,
                     std::vector<config::Change>& changes) {
  std::map<std::string, std::string> all = before;
  all.insert(after.begin(), after.end());
  for (const auto& [key, value] : all) {
    const std::string old = value_of(before, key), now = value_of(after, key);
    if (old != now) changes.push_back({key, old, now});
  }
}

}  // namespace

Horizon horizon_of(const RunState& state) {
  return {.steps = state.schedule_steps, .decay = state.decay_steps, .weight_decay = state.weight_decay_steps};
}

Manifest describe_run(const Config& config, const Dataset& dataset, const std::string& version,
                      const Dataset* validation) {
  Manifest manifest{.version = version};
  // The model's fields are its own, wherever they came from.
  for (const auto& [key, value] : config::values(config)) {
    if (!key.starts_with(kModelFields)) manifest.settings[key] = value;
  }
  const HfConfig model =
      load_hf_config(config.model.config.pretrained_model_name_or_path.value_or(""), model_overrides(config));
  make_model(model);  // reads what counts
  for (const auto& [key, field] : model.fields()) {
    if (model.was_read(key)) manifest.identity[std::string(kModelFields) + key] = to_text(field.value);
  }
  manifest.identity["dataset"] = dataset.identity();
  if (validation != nullptr) manifest.identity[kValidation] = validation->identity();
  return manifest;
}

std::vector<config::Change> resume_conflicts(const Manifest& checkpoint, const Manifest& run) {
  std::vector<config::Change> changes;
  add_differences(checkpoint.settings, run.settings, changes);
  std::erase_if(changes, [&](const config::Change& change) {
    return may_differ(change.key) || (change.key == "runtime.dtype" && same_masters(checkpoint, run));
  });
  std::map<std::string, std::string> before = checkpoint.identity;
  // Checkpoints of earlier versions do not say it.
  if (const auto now = run.identity.find(kValidation); now != run.identity.end()) before.insert(*now);
  add_differences(before, run.identity, changes);
  return changes;
}

std::string describe_conflicts(const std::vector<config::Change>& conflicts) {
  constexpr size_t kMost = 5;
  std::string text;
  for (size_t i = 0; i < std::min(conflicts.size(), kMost); ++i) {
    const config::Change& each = conflicts[i];
    text += fmt::format("{}{} is {} in the checkpoint and {} here", text.empty() ? "" : "; ", each.key, each.before,
                        each.after);
  }
  if (conflicts.size() > kMost) text += fmt::format("; and {} more", conflicts.size() - kMost);
  return text;
}

}  // namespace sluice
