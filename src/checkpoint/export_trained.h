// The values that the ranks of a run hold, as a directory of the hub: each writes its part of a checkpoint of values
// into it, the first rank makes weights of that (export_checkpoint) and removes it.
#pragma once

#include <filesystem>

#include "checkpoint/hub_export.h"
#include "checkpoint/trained_state.h"
#include "comm/communicator.h"

namespace sluice {

// A checkpoint of the values alone, in a directory that is there and empty. Collective over `world`.
void save_values(Context& ctx, Communicator& world, const TrainedState& state, const std::filesystem::path& directory);

// Collective over `world`: what it writes is complete when it returns. `directory` is there, the same one on all ranks;
// nothing but the weights' files is added to it, except where a rank fails. Host memory: a block of the rank's file,
// and what export_checkpoint takes. Meanwhile the disk holds the values twice, once as they are.
ExportCount export_trained(Context& ctx, Communicator& world, const TrainedState& state, const ModelConfig& model,
                           const std::filesystem::path& directory, DType dtype, const ExportOptions& options);

}  // namespace sluice
