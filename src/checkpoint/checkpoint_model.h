// A checkpoint says by itself what model it is of: config.json and a tokenizer's files lie beside its manifest
// (write_model_files in hub_export.h).
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "model/family.h"

namespace sluice {

// The directory itself where it is a checkpoint, the newest one of a run's directory, or nothing: a model of the hub
// for example. User error for a link that leads nowhere.
std::optional<std::filesystem::path> find_checkpoint(const std::filesystem::path& directory);

// The model of its config.json; with the layer that predicts further tokens where that was trained. User error unless
// it is this checkpoint's (match_parameters).
ModelConfig model_of(const Checkpoint& checkpoint);

// User error unless the values of all parameters of the model are there, in their shapes, and no others. A layer that
// predicts further tokens may be left out of the model.
void match_parameters(const Checkpoint& checkpoint, const ModelConfig& model);

// "step 1,200, 8.03 B parameters (90.0 GiB) from DIRECTORY".
std::string describe(const Checkpoint& checkpoint);

}  // namespace sluice
