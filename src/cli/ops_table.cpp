#include "cli/ops_table.h"

#include <fmt/format.h>

#include "base/text.h"

namespace sluice::cli {
namespace {

constexpr size_t narrow = 80;

// The columns of a line, with more between them where there is room.
std::string line(size_t width, const std::string& name, const std::string& calls, const std::string& share,
                 const std::string& time, const std::string& gflops, const std::string& gbs,
                 const std::string& roofline) {
  const size_t gap = width >= narrow + 12 ? 3 : 1;
  const std::string space(gap, ' ');
  std::string text = fmt::format("  {:<26}{}{:>6}{}{:>7}{}{:>8}{}{:>7}{}{:>6}{}{:>11}", name, space, calls, space,
                                 share, space, time, space, gflops, space, gbs, space, roofline);
  text.erase(text.find_last_not_of(' ') + 1);
  return text + "\n";
}

std::string percent(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

std::string rate(double per_second) {
  return fmt::format("{:.1f}", per_second * 1e-9);
}

}  // namespace

std::string ops_table(const BenchmarkRow& row, size_t width) {
  if (!row.ops) return {};
  const OpProfile& profile = *row.ops;
  std::string text = fmt::format("{}: where the {} of one step went (rank 0)\n", row.row.empty() ? row.model : row.row,
                                 format_duration(profile.step_seconds));
  text += line(width, "operation", "calls", "share", "time", "GFLOP/s", "GB/s", "of roofline");
  for (const OpTotals& op : profile.ops) {
    text += line(width, op.name, std::to_string(op.calls.size()), percent(op.seconds / profile.step_seconds),
                 format_duration(op.seconds), rate(op.flops() / op.seconds), rate(op.bytes() / op.seconds),
                 roofline_text(op.seconds, op.roof_seconds(profile.roof), op.arithmetic_seconds(profile.roof), 1));
  }
  const double outside = profile.step_seconds - profile.seconds_in_ops();
  text += line(width, "outside operations", "", percent(outside / profile.step_seconds), format_duration(outside), "",
               "", "");
  text += line(width, "whole step", "", percent(1), format_duration(profile.step_seconds), "", "",
               roofline_text(profile.step_seconds, profile.roof_seconds(), profile.arithmetic_seconds(), 1));
  text += wrap(
              "  roofline: the larger of an operation's FLOPs at the peak of what it multiplies and its bytes at the "
              "memory's bandwidth, each tensor touched once; \"cache\": faster than that, the data was in the "
              "processor's cache; \"above "
              "peak\": the peak was measured too low.",
              width, 2) +
          "\n";
  return text;
}

}  // namespace sluice::cli
