// `sluice bench`: benchmark rows on this machine, beside what was published.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/setup.h"

namespace sluice::cli {

// Which layouts of a row run: one fitted to --ranks, the row's own, or both where the row's own takes seconds.
enum class Layouts : uint8_t { fitted, row, both };

struct BenchOptions {
  std::vector<std::string> files;  // or names of published rows; none: all of those
  std::optional<std::string>
      layout;                        // "fit", "row", "both"; none: both for published rows that nothing else is said of
  std::optional<std::string> scale;  // "laptop", "tiny", "full"; none: laptop for a published row (tiny at its own
                                     // layout), full for others
  std::optional<int> ranks;          // of a fitted layout; none: 1
  std::optional<int> steps;          // timed ones
  std::string json;                  // file for the results; empty: none
  std::optional<std::string> from;   // print what this file holds instead of running
  bool ops = false;                  // where one step's time goes
  Shortcuts shortcuts;
  std::vector<std::string> overrides;
};

int run_bench(const BenchOptions& options);

}  // namespace sluice::cli
