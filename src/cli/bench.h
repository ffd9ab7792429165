// `sluice bench`: benchmark rows on this machine, beside what was published.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/setup.h"
#include "launch/identity.h"

namespace sluice::cli {

// Which layouts of a row run: one fitted to --ranks, the row's own, or both where the row's own takes seconds.
enum class Layouts : uint8_t { fitted, row, both };

struct BenchOptions {
  // Or names of published rows; none: all of those.
  std::vector<std::string> files;
  // "fit", "row", "both"; none: both, unless ranks, scale, layout or batch are given or there are several processes:
  // then "fit".
  std::optional<std::string> layout;
  // "laptop", "tiny", "full"; none: of a published row laptop, at its own layout tiny, of another file full.
  std::optional<std::string> scale;
  std::optional<int> ranks;         // of a fitted layout; none: one for each process
  std::optional<int> steps;         // timed ones
  std::optional<std::string> json;  // file for the results
  bool overwrite = false;           // it may be there
  std::optional<std::string> from;  // print what this file holds instead of running
  bool ops = false;                 // where one step's time goes
  Shortcuts shortcuts;
  std::vector<std::string> overrides;
  launch::IdentityFlags identity;
};

int run_bench(const BenchOptions& options);

}  // namespace sluice::cli
