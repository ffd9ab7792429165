// Packed forms of weights that are not read, told by name.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "checkpoint/safetensors.h"

namespace sluice {

// "compressed-tensors (pack-quantized, 4 bits)": what config.json's quantization_config beside the weights says, or
// else what names of tensors tell; nothing for plain weights and the quantised ones that are read (hub_weights.h).
std::optional<std::string> unread_packing(const safetensors::Model& stored);

// The user error about it.
Error packed_by(const std::filesystem::path& directory, std::string_view packing);

}  // namespace sluice
