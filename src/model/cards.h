// Where models come from: a hub id with a built-in card, a directory with config.json, or fields alone.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/family.h"

namespace sluice {

// Hub ids that have a built-in card.
std::vector<std::string> card_ids();

// The configuration with overrides laid over it. `id_or_directory`: a card's id (a directory of the same name is
// written ./like/this), a directory with config.json, or empty for a model whose fields are all given as overrides.
// User error for anything else, and for a directory whose config.json cannot be read.
HfConfig load_hf_config(std::string_view id_or_directory, std::span<const HfOverride> overrides = {});

// The model itself, named after its id or directory. See make_model for what is refused.
ModelConfig load_model(std::string_view id_or_directory, std::span<const HfOverride> overrides = {});

}  // namespace sluice
