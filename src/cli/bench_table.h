// The benchmark's tables, 100 columns wide.
#pragma once

#include <string>
#include <vector>

#include "config/load.h"
#include "train/benchmark.h"

namespace sluice::cli {

std::string table_head();
// The row, and below it the published one in the same columns.
std::string table_lines(const BenchmarkRow& row);
// What must stand beside the figures: what was changed, how it was measured.
std::string table_notes(const BenchmarkRow& row, const std::vector<config::Change>& changes);
// What the columns mean.
std::string table_legend();

}  // namespace sluice::cli
