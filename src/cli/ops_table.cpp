#include "cli/ops_table.h"

#include <fmt/format.h>

#include "base/text.h"

namespace sluice::cli {

std::string ops_table(const BenchmarkRow& row) {
  if (!row.ops) return {};
  const OpProfile& profile = *row.ops;
  constexpr const char* format = "  {:<24} {:>7} {:>8} {:>10} {:>9} {:>8} {:>12}\n";
  const auto percent = [](double share) { return fmt::format("{:.1f} %", 100 * share); };
  std::string text = fmt::format("{}: where the {} of one step went (rank 0)\n", row.row.empty() ? row.model : row.row,
                                 format_duration(profile.step_seconds));
  text += fmt::format(fmt::runtime(format), "operation", "calls", "share", "time", "GFLOP/s", "GB/s", "of roofline");
  for (const OpTotals& op : profile.ops) {
    text += fmt::format(fmt::runtime(format), op.name, op.calls.size(), percent(op.seconds / profile.step_seconds),
                        format_duration(op.seconds), fmt::format("{:.1f}", op.flops() / op.seconds * 1e-9),
                        fmt::format("{:.1f}", op.bytes() / op.seconds * 1e-9),
                        percent(op.roof_seconds(profile.roof) / op.seconds));
  }
  const double outside = profile.step_seconds - profile.seconds_in_ops();
  text += fmt::format(fmt::runtime(format), "outside operations", "", percent(outside / profile.step_seconds),
                      format_duration(outside), "", "", "");
  text += fmt::format(fmt::runtime(format), "whole step", "", percent(1), format_duration(profile.step_seconds), "", "",
                      percent(profile.roof_seconds() / profile.step_seconds));
  return text;
}

}  // namespace sluice::cli
