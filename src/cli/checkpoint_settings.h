// Configurations that a checkpoint stands for where a command is given its directory.
#pragma once

#include <filesystem>
#include <string_view>

#include "config/config.h"

namespace sluice::cli {

// The run's configuration, kept beside the manifest.
inline constexpr std::string_view kSettingsFile = "config.yaml";

// The run's own, with the checkpoint's weights.
Config run_of_checkpoint(const std::filesystem::path& checkpoint);

// No more than a model: that of a directory with config.json, and its weights where it has some.
Config config_of_model(const std::filesystem::path& directory);

}  // namespace sluice::cli
