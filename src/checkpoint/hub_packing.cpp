#include "checkpoint/hub_packing.h"

#include <algorithm>
#include <array>

#include "base/text.h"
#include "model/hf_config.h"

namespace sluice {
namespace {

// Endings of tensors that only such a program writes.
struct Trace {
  std::string_view ending;
  std::string_view packing;
};
constexpr std::array traces{Trace{".weight_packed", "compressed-tensors"}, Trace{".qweight", "GPTQ or AWQ"},
                            Trace{".weight.quant_map", "bitsandbytes"}, Trace{".weight.SCB", "bitsandbytes"},
                            Trace{".SCB", "bitsandbytes"}};

std::string text_at(const HfConfig& config, std::string_view key) {
  const HfField* field = config.find(key);
  const auto* text = field == nullptr ? nullptr : std::get_if<std::string>(&field->value);
  return text == nullptr ? std::string() : printable_line(text->substr(0, 40));
}

std::optional<std::string> stated(const std::filesystem::path& directory) {
  std::optional<HfConfig> config;
  try {
    config = HfConfig::load(directory);
  } catch (const Error&) {
    return {};  // nothing is known then; who needs the model's configuration says what is wrong with it
  }
  const std::string method = text_at(*config, "quantization_config.quant_method");
  if (method.empty() || method == "fp8" || method == "mxfp4") return {};
  std::string details = text_at(*config, "quantization_config.format");
  for (const auto& [key, field] : config->fields()) {
    const bool bits = key.starts_with("quantization_config.") &&
                      (key.ends_with("weights.num_bits") || key == "quantization_config.bits");
    if (!bits || !std::holds_alternative<int64_t>(field.value)) continue;
    details += fmt::format("{}{} bits", details.empty() ? "" : ", ", to_text(field.value));
    break;
  }
  return details.empty() ? method : fmt::format("{} ({})", method, details);
}

}  // namespace

std::optional<std::string> unread_packing(const safetensors::Model& stored) {
  const std::filesystem::path& path = stored.path();
  std::error_code ignored;
  const bool directory = std::filesystem::is_directory(path, ignored);
  if (std::optional<std::string> packing = stated(directory ? path : path.parent_path())) return packing;
  for (const auto& [name, tensor] : stored.tensors()) {
    for (const Trace& trace : traces) {
      if (name.ends_with(trace.ending)) return std::string(trace.packing);
    }
  }
  return {};
}

Error packed_by(const std::filesystem::path& directory, std::string_view packing) {
  return user_error("{}: its weights are packed by {}, which is not read", directory.string(), packing)
      .advise(
          "F64, F32, F16 and BF16 are read, and of quantised weights DeepSeek's FP8 and MXFP4: decompress them with "
          "the "
          "program that packed them, or take another release of the model");
}

}  // namespace sluice
