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

unsigned char byte_of(std::string_view text, std::size_t at) {
  return static_cast<unsigned char>(text[at]);
}

// As many bytes as the first one says.
std::size_t stated_length(unsigned char first) {
  return first < 0x80U ? 1 : first < 0xC2U ? 0 : first < 0xE0U ? 2 : first < 0xF0U ? 3 : first < 0xF5U ? 4 : 0;
}

bool continues(unsigned char byte) {
  return (byte & 0xC0U) == 0x80U;
}

// The beginning of a character whose other bytes may follow.
bool unfinished(std::string_view text) {
  if (text.empty() || text.size() >= stated_length(byte_of(text, 0))) return false;
  return std::all_of(text.begin() + 1, text.end(), [](char c) { return continues(static_cast<unsigned char>(c)); });
}

std::string escaped(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text;
}

// Of C0 (newline and tab not), DEL and C1: U+0080 to U+009F.
bool controls(std::string_view character) {
  const unsigned char first = byte_of(character, 0);
  if (character.size() == 1) return (first < 0x20U && first != '\n' && first != '\t') || first == 0x7FU;
  return first == 0xC2U && byte_of(character, 1) < 0xA0U;
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

std::string format_share(double share, int decimals, std::string_view beyond) {
  const std::string text = fmt::format("{:.{}f} %", 100 * share, decimals);
  // A hundred is one that was rounded to it.
  return share <= 1 || text == fmt::format("{:.{}f} %", 100.0, decimals) ? text : std::string(beyond);
}

std::size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const unsigned char first = byte_of(text, 0);
  const std::size_t length = stated_length(first);
  if (length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if (!continues(byte_of(text, i))) return 0;
  }
  if (length < 3) return length;
  const unsigned char second = byte_of(text, 1);
  const bool overlong = (first == 0xE0U && second < 0xA0U) || (first == 0xF0U && second < 0x90U);
  const bool surrogate = first == 0xEDU && second > 0x9FU;
  const bool too_large = first == 0xF4U && second > 0x8FU;
  return overlong || surrogate || too_large ? 0 : length;
}

std::size_t columns_of(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return !continues(static_cast<unsigned char>(c)); }));
}

std::string_view clipped(std::string_view text, std::size_t columns) {
  std::size_t end = 0;
  for (; end < text.size(); ++end) {
    if (!continues(byte_of(text, end)) && columns-- == 0) break;
  }
  return text.substr(0, end);
}

std::string wrap(std::string_view text, std::size_t width, std::size_t indent) {
  if (const std::size_t end = text.find('\n'); end != std::string_view::npos) {
    return wrap(text.substr(0, end), width, indent) + "\n" + wrap(text.substr(end + 1), width, indent);
  }
  std::string result;
  std::size_t column = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    if (column > 0 && column + 1 + columns_of(word) > width) {
      result += '\n';
      result.append(indent, ' ');
      column = indent;
    } else if (begin > 0) {
      result += ' ';
      ++column;
    }
    result += word;
    column += columns_of(word);
    begin = end + 1;
  }
  return result;
}

std::string Printable::add(std::string_view text) {
  pending_ += text;
  const std::string_view all = pending_;
  std::string result;
  std::size_t at = 0;
  while (at < all.size() && !unfinished(all.substr(at))) {
    const std::size_t length = utf8_length(all.substr(at));
    const std::string_view character = all.substr(at, std::max<std::size_t>(1, length));
    result += length == 0 || controls(character) ? escaped(character) : std::string(character);
    at += character.size();
  }
  pending_.erase(0, at);
  return result;
}

std::string Printable::finish() {
  std::string result = escaped(pending_);
  pending_.clear();
  return result;
}

std::string printable(std::string_view text) {
  Printable shown;
  std::string result = shown.add(text);
  return result + shown.finish();
}

std::string printable_line(std::string_view text) {
  std::string result;
  for (const char c : printable(text)) result += c == '\n' || c == '\t' ? escaped({&c, 1}) : std::string(1, c);
  return result;
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

std::string quoted_for_shell(std::string_view text) {
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+./:,@%";
  if (!text.empty() && text.find_first_not_of(plain) == std::string_view::npos) return std::string(text);
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? "'\\''" : std::string{c};
  return quoted + "'";
}

}  // namespace sluice
