// Finding the files of a text.
#pragma once

#include <filesystem>
#include <vector>

#include "base/clock.h"
#include "data/bytes.h"

namespace sluice {

struct FoundFiles {
  std::vector<std::filesystem::path> files;  // in the order of their names
  bool named = false;                        // the path is the one file
  LeftOut hidden, systems;                   // see ByteText
};

// The files that load_text would read if all were text; `timer` says when to report. User errors for a path that is
// not there, is neither file nor directory, is of a pseudo file system, or cannot be read.
FoundFiles find_files(const std::filesystem::path& path, ProgressTimer& timer);

// `path` as it is called below `root`.
std::string name_below(const std::filesystem::path& path, const std::filesystem::path& root);

}  // namespace sluice
