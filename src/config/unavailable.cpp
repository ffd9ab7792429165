#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "config/codec.h"
#include "config/load.h"
#include "config/schema.h"

namespace sluice::config {

namespace {

// Keys of a router where a forced gate stands in its place, or where their loss has no weight.
void add_idle_of_router(const Config& config, std::vector<Unavailable>& list) {
  const Model& model = config.model;
  const bool forced = config.balance() != Balance::router;
  const std::string gate =
      fmt::format("a forced gate ({}) sends tokens to experts, and there is no router", word(config.balance()));
  const auto add = [&](const char* key, std::string value, std::string instead) {
    if (config.is_set(key)) list.push_back({key, std::move(value), config.origin(key).place(), std::move(instead)});
  };
  const auto add_number = [&](const char* key, double value) {
    if (forced && value != 0) add(key, write_real(value), gate);
  };
  add_number("model.aux_loss_coef", model.aux_loss_coef.value_or(0));
  add_number("model.router_z_loss_coef", model.router_z_loss_coef);
  add_number("model.gate_bias_update_factor", model.gate_bias_update_factor.value_or(0));
  if (!model.aux_loss_over) return;
  const std::string over(word(*model.aux_loss_over));
  if (forced) {
    add("model.aux_loss_over", over, gate);
  } else if (model.aux_loss_coef == 0.0) {
    add("model.aux_loss_over", over, "the balance loss has weight 0 (model.aux_loss_coef)");
  }
}

// Keys that a run of this configuration does not act on.
void add_idle(const Config& config, std::vector<Unavailable>& list) {
  const auto add = [&](const char* key, std::string value, const char* instead) {
    if (config.is_set(key)) list.push_back({key, std::move(value), config.origin(key).place(), instead});
  };
  if (config.checkpoint.model_save_format == "torch_save") {
    add("checkpoint.model_save_format", "torch_save", "checkpoints are written as safetensors");
  }
  if (!config.runtime.deterministic && config.runtime.device != DeviceKind::cuda) {
    add("runtime.deterministic", "false", "the CPU gives the same bits always");
  }
  const auto& validate = config.step_scheduler.val_every_steps;
  if (validate && config.validation_dataset.target == DatasetKind::none && config.recipe == Recipe::train) {
    add("step_scheduler.val_every_steps", std::to_string(*validate), "validation_dataset names no data");
  }
  const Dataset& validation = config.validation_dataset;
  if (validation.target != DatasetKind::none && validation.seq_len != config.dataset.seq_len) {
    add("validation_dataset.seq_len", std::to_string(validation.seq_len), "validation has dataset.seq_len");
  }
  if (config.distributed.sequence_parallel && config.distributed.tp_size == 1) {
    add("distributed.sequence_parallel", "true", "without tensor parallel ranks there is nothing to divide");
  }
  add_idle_of_router(config, list);
}

}  // namespace

std::vector<IgnoredKey> overruled(const Config& config) {
  Config copy = config;
  const Schema schema = bind(copy);
  std::vector<IgnoredKey> keys;
  std::ranges::copy_if(config.ignored, std::back_inserter(keys),
                       [&](const IgnoredKey& ignored) { return schema.find(ignored.key) != nullptr; });
  return keys;
}

std::string why_absent(std::string_view word) {
  struct Absent {
    std::string_view name;
    const char* why;
  };
  constexpr const char* megatron =
      "Megatron's indexed files cannot be read yet; `bytes` reads text, `mock` draws random tokens";
  constexpr const char* nanogpt = "nanoGPT's shards cannot be read yet; `bytes` reads text, `mock` draws random tokens";
  constexpr const char* tuning = "data of fine-tuning; sluice pre-trains on `bytes` or `mock`";
  constexpr const char* optimizer = "this optimizer is not available; AdamW and Adam are";
  constexpr Absent list[] = {{"MegatronPretraining", megatron},
                             {"MegatronPretrainingConfig", megatron},
                             {"NanogptDataset", nanogpt},
                             {"make_squad_dataset", tuning},
                             {"HellaSwag", tuning},
                             {"ChatDataset", tuning},
                             {"ColumnMappedTextInstructionDataset", tuning},
                             {"FlashAdamW", optimizer},
                             {"FlashAdamWConfig", optimizer},
                             {"Muon", optimizer},
                             {"MuonConfig", optimizer},
                             {"NorMuon", optimizer},
                             {"Dion", optimizer},
                             {"Dion2", optimizer},
                             {"SGD", optimizer}};
  const std::size_t dot = word.find_last_of(".:");
  const std::string_view name = dot == std::string_view::npos ? word : word.substr(dot + 1);
  const auto found = std::ranges::find(list, name, &Absent::name);
  return found == std::end(list) ? "" : found->why;
}

std::vector<Unavailable> unavailable(const Config& config) {
  constexpr const char* instead = "8-bit products are not available, all have runtime.dtype";
  std::vector<Unavailable> list;
  const auto add = [&](const char* key, std::string value) {
    list.push_back({key, std::move(value), config.origin(key).place(), instead});
  };
  add_idle(config, list);
  const Backend& backend = config.model.backend;
  constexpr const char* te_fp8 = "model.backend.te_fp8.recipe";
  if (backend.te_fp8.recipe) {
    add(te_fp8, std::string(word(*backend.te_fp8.recipe)));
  } else if (!config.is_set(te_fp8)) {
    // The section alone asks for it too, an empty one or its class's name.
    const auto section = std::ranges::find_if(config.ignored, [](const IgnoredKey& ignored) {
      return ignored.key == "model.backend.te_fp8" || ignored.key == "model.backend.te_fp8._target_";
    });
    if (section != config.ignored.end()) {
      list.push_back({te_fp8, std::string(word(Fp8Recipe::current)), section->where, instead});
    }
  }
  if (backend.experts == "torch_mm_mxfp8") add("model.backend.experts", backend.experts);
  if (config.fp8.enabled) add("fp8.enabled", config.fp8.recipe_name.value_or("true"));
  return list;
}

}  // namespace sluice::config
