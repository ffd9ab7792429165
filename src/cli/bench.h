// `sluice bench`: benchmark rows on this machine, beside what was published.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/setup.h"

namespace sluice::cli {

struct BenchOptions {
  std::vector<std::string> files;    // none: the published rows
  std::optional<std::string> scale;  // "laptop", "tiny", "full"; none: laptop for a published row, full for others
  int ranks = 1;
  std::optional<int> steps;  // timed ones
  std::string json;          // file for the results; empty: none
  bool ops = false;          // where one step's time goes
  Shortcuts shortcuts;
  std::vector<std::string> overrides;
};

int run_bench(const BenchOptions& options);

}  // namespace sluice::cli
