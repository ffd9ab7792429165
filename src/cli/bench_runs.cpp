#include "cli/bench_runs.h"

#include <algorithm>

#include "base/text.h"

namespace sluice::cli {

std::vector<NamedText> group_alike(const std::vector<NamedText>& texts) {
  std::vector<NamedText> groups;
  for (const NamedText& each : texts) {
    if (each.text.empty()) continue;
    const auto same = std::ranges::find(groups, each.text, &NamedText::text);
    if (same == groups.end()) {
      groups.push_back(each);
    } else if (!each.name.empty()) {
      same->name += ", " + each.name;
    }
  }
  return groups;
}

std::string label_of(const BenchmarkRow& row) {
  return row.row.empty() ? row.model : row.row;
}

std::string command_name(const BenchmarkRow& row) {
  return row.row.empty() ? row.config : row.row;
}

bool of_one_model(const BenchmarkRow& a, const BenchmarkRow& b) {
  return a.config == b.config && a.row == b.row && a.model == b.model;
}

bool first_of_its_model(const BenchmarkReport& report, const BenchmarkRow& row) {
  const auto same = [&](const BenchmarkRow& other) { return of_one_model(row, other); };
  return &*std::ranges::find_if(report.rows, same) == &row;
}

std::string note(const std::string& text, size_t width) {
  return wrap(text, width, 2) + "\n";
}

}  // namespace sluice::cli
