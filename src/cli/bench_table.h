// The benchmark's table: for each row of the published one a line with the published columns, and below it one for each
// layout that ran here, in the same columns. Lines are at most `width` columns long, from 80 on; below 100 a line's
// figures continue on the next. All text is a function of the report, so a recorded one prints the same again.
#pragma once

#include <string>

#include "training/benchmark.h"

namespace sluice::cli {

// What machine, and the names of the columns.
std::string table_head(const BenchmarkReport& report, size_t width);
// The line of row `index`, under its model's name and published line if it is the first of them.
std::string table_lines(const BenchmarkReport& report, size_t index, size_t width);
// What must stand beside the figures: how they were measured and what was changed. Of several models what they share;
// of a single one everything.
std::string table_notes(const BenchmarkReport& report, size_t width);
// All of it.
std::string render(const BenchmarkReport& report, size_t width);

}  // namespace sluice::cli
