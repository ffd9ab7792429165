// The files of a hub directory beside its weights.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <array>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <variant>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/hub_export.h"
#include "model/hf_config.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

using Json = nlohmann::ordered_json;

void set_dtype(Json& json, DType dtype) {
  const std::string_view name = dtype == DType::bf16 ? "bfloat16" : dtype == DType::f32 ? "float32" : "float64";
  // Newer files say dtype.
  json[json.contains("dtype") ? "dtype" : "torch_dtype"] = name;
}

// config.json, which is one: its bounds were checked when the model was made of it.
std::string changed_config(const std::string& text, std::optional<DType> dtype) {
  Json json = Json::parse(text);
  const bool was_quantized = json.erase("quantization_config") > 0;
  if (dtype || was_quantized) set_dtype(json, dtype.value_or(DType::bf16));
  return json.dump(2) + "\n";
}

// "rope_scaling.mscale_all_dim" as the pointer "/rope_scaling/mscale_all_dim": numbers between dots make lists.
Json::json_pointer pointer_to(std::string_view key) {
  std::string pointer = "/";
  for (const char c : key) {
    if (c == '.') {
      pointer += '/';
    } else if (c == '~' || c == '/') {
      pointer += c == '~' ? "~0" : "~1";
    } else {
      pointer += c;
    }
  }
  return Json::json_pointer(pointer);
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

}  // namespace

void write_hub_config(const HfConfig& config, const fs::path& directory, DType dtype) {
  Json json = Json::object();
  for (const auto& [key, field] : config.fields()) {
    // Labels by number, which would become lists.
    if (key.starts_with("id2label") || key.starts_with("quantization_config")) continue;
    std::visit(
        [&](const auto& value) {
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::monostate>) {
            json[pointer_to(key)] = nullptr;
          } else {
            json[pointer_to(key)] = value;
          }
        },
        field.value);
  }
  set_dtype(json, dtype);
  write_file_atomic(directory / "config.json", json.dump(2) + "\n");
}

int copy_hub_files(const fs::path& from, const fs::path& to, std::optional<DType> dtype) {
  write_file_atomic(to / "config.json", changed_config(read_file(from / "config.json", HfConfig::kMaxBytes), dtype));
  int copied = 1;
  for (const fs::directory_entry& entry : fs::directory_iterator(from)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file() || !goes_along(name)) continue;
    std::error_code failure;
    fs::copy_file(entry.path(), to / name, fs::copy_options::overwrite_existing, failure);
    if (failure)
      throw runtime_failure("cannot copy {} to {}: {}", entry.path().string(), to.string(), failure.message());
    ++copied;
  }
  return copied;
}

}  // namespace sluice
