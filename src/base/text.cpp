#include "base/text.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace sluice {
namespace {

// At least three figures: 1.50, 72.6, 512.
std::string three_figures(double value) {
  const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}", value, decimals);
}

}  // namespace

std::string format_bytes(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  constexpr std::array units{"KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; value >= 1023.5 && unit + 1 < units.size(); ++unit) value /= 1024;
  return fmt::format("{} {}", three_figures(value), units.at(unit));
}

std::string format_count(std::int64_t count) {
  std::string text = fmt::format("{}", count);
  const std::ptrdiff_t first = count < 0 ? 2 : 1;
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at >= first; at -= 3)
    text.insert(text.begin() + at, ',');
  return text;
}

std::string format_magnitude(double value) {
  if (!(std::abs(value) >= 999.5)) return fmt::format("{:.0f}", value);
  constexpr std::array units{"K", "M", "B", "T"};
  std::size_t unit = 0;
  value /= 1000;
  for (; std::abs(value) >= 999.995 && unit + 1 < units.size(); ++unit) value /= 1000;
  // The largest models differ in what two places of a trillion hide.
  return fmt::format("{:.{}f} {}", value, unit + 1 < units.size() ? 2 : 4, units.at(unit));
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || std::isinf(seconds)) return "?";
  if (seconds == 0) return "0 s";
  if (seconds < 999.5e-9) return three_figures(seconds * 1e9) + " ns";
  if (seconds < 999.5e-6) return three_figures(seconds * 1e6) + " us";
  if (seconds < 999.5e-3) return three_figures(seconds * 1e3) + " ms";
  if (seconds < 99.95) return three_figures(seconds) + " s";
  const auto whole = std::llround(seconds);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

std::string format_clock(double seconds) {
  if (!(seconds >= 0) || std::isinf(seconds)) return "?";
  const auto whole = std::llround(seconds);
  const auto hours = whole / 3600, minutes = whole % 3600 / 60, rest = whole % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, rest);
  return fmt::format("{}:{:02}", minutes, rest);
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // d[i][j] = min(d[i-1][j] + 1, d[i][j-1] + 1, d[i-1][j-1] + [a_i != b_j], d[i-2][j-2] + 1 if swapped): three rows.
  std::vector<std::size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::swap(before, above);
    std::swap(above, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, substituted});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

std::string nearest(std::string_view word, std::span<const std::string> candidates) {
  std::string best;
  std::size_t fewest = std::string::npos;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(word, candidate);
    const std::size_t longer = std::max(word.size(), candidate.size());
    const bool near = distance <= std::max<std::size_t>(2, longer / 3) && distance < longer;
    if (near && distance < fewest) {
      fewest = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace sluice
