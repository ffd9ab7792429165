// How the benchmark's table and its notes name runs, and put together what several have in common.
#pragma once

#include <string>
#include <vector>

#include "training/benchmark.h"

namespace sluice::cli {

struct NamedText {
  std::string name;
  std::string text;
};
// One entry for each text, in the order they come, with the names of all that have it; empty texts are left out.
std::vector<NamedText> group_alike(const std::vector<NamedText>& texts);

// "R4", or the model of a file without a label.
std::string label_of(const BenchmarkRow& row);
// What the command line takes for it: "R4", or the file.
std::string command_name(const BenchmarkRow& row);
// Whether both are runs of one file.
bool of_one_model(const BenchmarkRow& a, const BenchmarkRow& b);
// Whether no run of that file stands before this one, which is one of the report's.
bool first_of_its_model(const BenchmarkReport& report, const BenchmarkRow& row);

// A paragraph.
std::string note(const std::string& text, size_t width);

}  // namespace sluice::cli
