// The files of a hub directory beside its weights.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <variant>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/hub_export.h"
#include "model/cards.h"
#include "model/hf_config.h"
#include "model/python_json.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

using Json = nlohmann::ordered_json;

std::string_view torch_name(DType dtype) {
  return dtype == DType::bf16 ? "bfloat16" : dtype == DType::f32 ? "float32" : "float64";
}

void set_dtype(Json& json, DType dtype) {
  const std::string_view name = torch_name(dtype);
  // Newer files say dtype.
  json[json.contains("dtype") ? "dtype" : "torch_dtype"] = name;
}

// config.json, which is one: its bounds were checked when the model was made of it.
std::string changed_config(const std::string& text, std::optional<DType> dtype) {
  Json json = Json::parse(standard_json(text));
  const bool was_quantized = json.erase("quantization_config") > 0;
  if (dtype || was_quantized) set_dtype(json, dtype.value_or(DType::bf16));
  return python_json(json.dump(2)) + "\n";
}

// Where "rope_scaling.mscale_all_dim" stands; all containers are maps at first.
Json& at_path(Json& json, std::string_view key) {
  Json* at = &json;
  for (size_t dot = key.find('.'); dot != std::string_view::npos; dot = key.find('.')) {
    at = &(*at)[std::string(key.substr(0, dot))];
    key.remove_prefix(dot + 1);
  }
  return (*at)[std::string(key)];
}

// Maps whose keys are 0, 1, ... n - 1 were lists.
void restore_lists(Json& json) {
  if (!json.is_object()) return;
  bool list = !json.empty();
  for (size_t i = 0; i < json.size() && list; ++i) list = json.contains(std::to_string(i));
  for (Json& item : json) restore_lists(item);
  if (!list) return;
  Json items = Json::array();
  for (size_t i = 0; i < json.size(); ++i) items.push_back(std::move(json[std::to_string(i)]));
  json = std::move(items);
}

// Hugging Face's classes refuse 1 where they want 1.0.
bool is_real(std::string_view key) {
  constexpr std::array reals{"initializer_range", "rms_norm_eps", "routed_scaling_factor", "router_aux_loss_coef"};
  return std::find(reals.begin(), reals.end(), key) != reals.end();
}

bool goes_along(std::string_view name) {
  constexpr std::array openings{"tokenizer",    "vocab",         "merges",       "special_tokens_map",
                                "added_tokens", "chat_template", "preprocessor", "configuration_",
                                "modeling_",    "tokenization_", "LICENSE",      "README",
                                "NOTICE"};
  for (const std::string_view opening : openings) {
    if (name.starts_with(opening)) return true;
  }
  return name == "generation_config.json" || name.ends_with(".tiktoken") || name.ends_with(".model");
}

// config.json anew, from a configuration that may have been laid over another, or have been no file at all.
void write_hub_config(const HfConfig& config, const fs::path& directory, DType dtype) {
  Json json = Json::object();
  for (const auto& [key, field] : config.fields()) {
    // Labels by number, which would become lists.
    if (key.starts_with("id2label") || key.starts_with("quantization_config")) continue;
    // As many as there were layers, which may have changed; the only ones a family here has are what it has anyway.
    if (key.starts_with("layer_types")) continue;
    std::visit(
        [&](const auto& value) {
          using Value = std::decay_t<decltype(value)>;
          if constexpr (std::is_same_v<Value, std::monostate>) {
            at_path(json, key) = nullptr;
          } else if constexpr (std::is_same_v<Value, int64_t>) {
            at_path(json, key) = is_real(key) ? Json(static_cast<double>(value)) : Json(value);
          } else if constexpr (std::is_same_v<Value, double>) {
            at_path(json, key) = std::isfinite(value) ? Json(value) : Json(marked(value));
          } else {
            at_path(json, key) = value;
          }
        },
        field.value);
  }
  for (Json& item : json) restore_lists(item);
  set_dtype(json, dtype);
  write_file_atomic(directory / "config.json", python_json(json.dump(2)) + "\n");
}

}  // namespace

bool is_hub_file(std::string_view name) {
  return name == "config.json" || name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") ||
         goes_along(name);
}

int copy_hub_files(const fs::path& from, const fs::path& to, std::optional<DType> dtype) {
  write_file_atomic(to / "config.json", changed_config(read_file(from / "config.json", HfConfig::kMaxBytes), dtype));
  int copied = 1;
  for (const fs::directory_entry& entry : fs::directory_iterator(from)) {
    const std::string name = entry.path().filename().string();
    std::error_code failure;
    if (!goes_along(name) || !entry.is_regular_file(failure)) continue;
    AtomicFile copy(to / name);
    copy.append(MappedFile(entry.path()).bytes());
    copy.commit();
    ++copied;
  }
  return copied;
}

DType hub_dtype(const HfConfig& config) {
  for (const char* const key : {"dtype", "torch_dtype"}) {
    const HfField* const field = config.find(key);
    const auto* const name = field != nullptr ? std::get_if<std::string>(&field->value) : nullptr;
    for (const DType dtype : {DType::bf16, DType::f64}) {
      if (name != nullptr && *name == torch_name(dtype)) return dtype;
    }
  }
  return DType::f32;
}

void write_model_files(const std::string& source, std::span<const HfOverride> overrides, const fs::path& directory,
                       DType dtype) {
  std::error_code ignored;
  const bool has_files = fs::is_directory(source, ignored);
  if (has_files) copy_hub_files(source, directory, dtype);
  if (!has_files || !overrides.empty()) write_hub_config(load_hf_config(source, overrides), directory, dtype);
}

}  // namespace sluice
