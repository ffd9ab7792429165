// `sluice config`: what a configuration comes to, and where each value came from.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace sluice::cli {

struct ConfigOptions {
  std::string file;    // or, with `keys`, a section
  bool keys = false;   // list the keys there are instead
  bool given = false;  // only what is not a preset
  std::optional<std::string> scale;
  std::optional<int> ranks;
  std::vector<std::string> overrides;
};

int run_config(const ConfigOptions& options);

}  // namespace sluice::cli
