// Where one step's time goes, by operation.
#pragma once

#include <string>

#include "training/benchmark.h"

namespace sluice::cli {

// Each operation's share of a step and how near it comes to its own roofline, at most `width` columns (80 or more)
// wide. Empty for a row without a profile.
std::string ops_table(const BenchmarkRow& row, size_t width);

}  // namespace sluice::cli
