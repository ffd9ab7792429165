// Which weights lie in a directory, by the names of its files: that they can be read is seen in reading them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"

namespace sluice {

struct WeightFiles {
  bool readable = false;            // model.safetensors or its index is there, a link that leads nowhere too
  std::vector<std::string> others;  // weights of another form, or that no reader would find under their name, sorted;
                                    // those in the directories directly below too
  bool any() const { return readable || !others.empty(); }
};

// User error where the directory cannot be listed.
WeightFiles find_weight_files(const std::filesystem::path& directory);

// For a directory without readable weights: names what is there, and says how it can be read. `otherwise`, which may be
// empty, is added to the advice.
Error no_readable_weights(const std::filesystem::path& directory, const WeightFiles& files,
                          const std::string& otherwise = {});

}  // namespace sluice
