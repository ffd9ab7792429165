// What the ranks that write a checkpoint together tell each other by way of its directory: each leaves the hashes of
// its file beside it, the one that writes the manifest collects them.
#pragma once

#include <filesystem>
#include <vector>

#include "checkpoint/manifest.h"

namespace sluice {

// Call when the rank's file is complete.
void leave_part(const std::filesystem::path& directory, const HashedFile& file);
// Of the files of ranks 0 to `ranks` - 1, when all have left theirs; nothing but the rank files is there afterwards.
std::vector<HashedFile> collect_parts(const std::filesystem::path& directory, int ranks);

}  // namespace sluice
