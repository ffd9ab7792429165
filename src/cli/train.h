// `sluice train`: trains a model as a configuration says.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/setup.h"
#include "launch/identity.h"

namespace sluice::cli {

struct TrainOptions {
  std::string file;
  std::optional<int> ranks;           // default: the fewest the configuration's degrees allow
  std::optional<std::string> resume;  // the value of --resume, which may be empty
  std::optional<std::string> export_directory;
  bool overwrite = false;
  Shortcuts shortcuts;
  std::vector<std::string> overrides;
  launch::IdentityFlags identity;
};

int run_train(const TrainOptions& options);

}  // namespace sluice::cli
