#include "config/codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <regex>

namespace sluice::config {
namespace {

// Integers beyond this lose digits where they meet floating point.
constexpr std::int64_t max_integer = 9007199254740992;

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

// Both in lower case. "torch.optim.Adam" is the class "Adam": equal, or its tail after a dot or a colon.
bool says(const std::string& text, const std::string& word, bool is_class) {
  if (text == word) return true;
  if (!is_class || text.size() <= word.size() || !text.ends_with(word)) return false;
  const char before = text[text.size() - word.size() - 1];
  return before == '.' || before == ':';
}

bool is_class(const std::string& word) {
  return std::isupper(static_cast<unsigned char>(word.front())) != 0;
}

// The last so many parts of a dotted path.
std::string tail(const std::string& path, std::ptrdiff_t parts) {
  std::size_t begin = path.size();
  for (; parts > 0 && begin != std::string::npos && begin > 0; --parts) begin = path.find_last_of(".:", begin - 1);
  return begin == std::string::npos || begin == 0 ? path : path.substr(begin + 1);
}

// The word that `text` was probably meant to be, empty when none is near. Of a dotted path as much counts as the word
// itself has parts.
std::string meant(const std::string& text, const std::vector<std::string>& words) {
  std::string best;
  std::size_t fewest = std::string::npos;
  for (const std::string& word : words) {
    const std::string small = lower(word);
    const std::string end = is_class(word) ? tail(text, std::ranges::count(word, '.') + 1) : text;
    const std::size_t edits = edit_distance(end, small);
    if (nearest(end, std::vector{small}).empty() || edits >= fewest) continue;
    fewest = edits;
    best = word;
  }
  return best;
}

// Digits as YAML allows them: a leading plus and underscores between digits are dropped.
std::string digits(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool between = text[i] == '_' && i > 0 && i + 1 < text.size() &&
                         std::isdigit(static_cast<unsigned char>(text[i - 1])) != 0 &&
                         std::isdigit(static_cast<unsigned char>(text[i + 1])) != 0;
    if (!between) result += text[i];
  }
  return result;
}

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  const std::string clean = digits(text);
  Number value{};
  const auto [end, error] = std::from_chars(clean.data(), clean.data() + clean.size(), value);
  if (error != std::errc{} || end != clean.data() + clean.size()) return std::nullopt;
  return value;
}

bool inside(double value, const Range& range) {
  return (range.above ? value > range.low : value >= range.low) && value <= range.high;
}

std::string shown(const Node& node) {
  switch (node.kind) {
    case Node::Kind::null:
      return "null";
    case Node::Kind::list:
      return "a list";
    case Node::Kind::map:
      return "a section";
    case Node::Kind::scalar:
      break;
  }
  constexpr std::size_t longest = 80;
  const bool cut = node.text.size() > longest;
  std::size_t end = std::min(node.text.size(), longest);
  while (cut && end > 0 && (static_cast<unsigned char>(node.text[end]) & 0xC0U) == 0x80U) --end;
  return json_quote(node.text.substr(0, end) + (cut ? "..." : ""));
}

// Of a whole number that is too large the bound too, which a description leaves out where few come near it.
std::string describe_integers(const Node& node, const Range& range) {
  const auto most = static_cast<std::int64_t>(std::min(range.high, static_cast<double>(max_integer)));
  const std::string clean = digits(node.text);
  const bool whole =
      node.kind == Node::Kind::scalar && !clean.empty() && clean.find_first_not_of("0123456789") == std::string::npos;
  if (!whole || parse_number<std::int64_t>(clean).value_or(most + 1) <= most) return describe_range("integer", range);
  const std::string low = std::isfinite(range.low) ? fmt::format("from {} to", write_real(range.low)) : "up to";
  return fmt::format("integer {} {}", low, most);
}

}  // namespace

Error mismatch(std::string_view expected, const Node& got) {
  return user_error("expected {}, got {}", expected, shown(got));
}

std::string describe_range(std::string_view kind, const Range& range) {
  const bool low = std::isfinite(range.low);
  const bool high = std::isfinite(range.high) && range.high != max_count;
  if (low && high) return fmt::format("{} from {} to {}", kind, write_real(range.low), write_real(range.high));
  if (low) return fmt::format("{} {} {}", kind, range.above ? ">" : ">=", write_real(range.low));
  return std::string(kind);
}

std::int64_t read_integer(const Node& node, const Range& range) {
  const auto value = node.kind == Node::Kind::scalar ? parse_number<std::int64_t>(node.text) : std::nullopt;
  if (!value || !inside(static_cast<double>(*value), range) || *value > max_integer || *value < -max_integer) {
    throw mismatch(describe_integers(node, range), node);
  }
  return *value;
}

double read_real(const Node& node, const Range& range) {
  const auto value = node.kind == Node::Kind::scalar ? parse_number<double>(node.text) : std::nullopt;
  if (!value || !std::isfinite(*value) || !inside(*value, range)) throw mismatch(describe_range("number", range), node);
  return *value;
}

bool read_bool(const Node& node) {
  const std::string text = node.kind == Node::Kind::scalar ? lower(node.text) : "";
  if (text == "true" || text == "yes" || text == "on") return true;
  if (text == "false" || text == "no" || text == "off") return false;
  throw mismatch("true or false", node);
}

std::string read_text(const Node& node) {
  if (node.kind != Node::Kind::scalar) throw mismatch("text", node);
  return node.text;
}

std::size_t read_word(const Node& node, const std::vector<std::string>& words) {
  const std::string text = node.kind == Node::Kind::scalar ? lower(node.text) : "";
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (says(text, lower(words[i]), is_class(words[i]))) return i;
  }
  Error error = mismatch(one_of(words), node);
  const std::string near = text.empty() ? "" : meant(text, words);
  if (near.empty()) throw error;
  throw std::move(error).advise("did you mean " + near + "?");
}

Recompute read_recompute(const Node& node) {
  if (node.kind == Node::Kind::list) {
    Recompute value;
    for (const Node& item : node.items) {
      const RecomputePart piece = Codec<RecomputePart>::read(item, {});
      if (std::ranges::find(value.pieces, piece) == value.pieces.end()) value.pieces.push_back(piece);
    }
    return value;
  }
  const std::string text = node.kind == Node::Kind::scalar ? lower(node.text) : "";
  if (text == "none" || text == "false") return {};
  if (text == "full" || text == "true") return {.full = true, .pieces = {}};
  if (text == "selective") return Recompute::selective();
  throw mismatch(Codec<Recompute>::type({}), node);
}

ParamGroupOverride read_override(const Node& node) {
  if (node.kind != Node::Kind::map) throw mismatch(Codec<ParamGroupOverride>::type({}), node);
  ParamGroupOverride value;
  for (const Node& item : node.items) {
    if (item.key == "pattern") {
      value.pattern = read_text(item);
    } else if (item.key == "lr_mult") {
      value.lr_mult = read_real(item, non_negative);
    } else if (item.key == "wd_mult") {
      value.wd_mult = read_real(item, non_negative);
    } else {
      throw user_error("{} is none of pattern, lr_mult, wd_mult", item.key);
    }
  }
  if (value.pattern.empty()) throw user_error("an override needs a pattern");
  try {
    static_cast<void>(std::regex(value.pattern));  // throws
  } catch (const std::regex_error& error) {
    throw user_error("pattern {} is no ECMAScript regular expression: {}", json_quote(value.pattern), error.what());
  }
  return value;
}

bool is_null(const Node& node, bool none_too) {
  if (node.kind == Node::Kind::null) return true;
  if (node.kind != Node::Kind::scalar || !node.plain) return false;
  const std::string& text = node.text;
  return text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL" ||
         (none_too && (text == "none" || text == "None"));
}

std::string write_real(double value) {
  return fmt::format("{}", value);
}

std::string write_text(std::string_view text) {
  constexpr std::string_view safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./+*";
  const bool plain_start = !text.empty() && text.front() != '-' && text.front() != '*' && text.front() != '.';
  Node node;
  node.kind = Node::Kind::scalar;
  node.text = text;
  // What reads as a number, a boolean or null is quoted, so that it stays text.
  if (plain_start && text.find_first_not_of(safe) == std::string_view::npos && to_json(node).front() == '"' &&
      !is_null(node, true)) {
    return std::string(text);
  }
  return json_quote(text);
}

std::string write_list(const std::vector<std::string>& items) {
  return fmt::format("[{}]", fmt::join(items, ", "));
}

std::string write_recompute(const Recompute& value) {
  if (value.full) return "full";
  if (value.pieces.empty()) return "none";
  return Codec<std::vector<RecomputePart>>::write(value.pieces);
}

std::string write_override(const ParamGroupOverride& value) {
  return fmt::format("{{pattern: {}, lr_mult: {}, wd_mult: {}}}", json_quote(value.pattern), write_real(value.lr_mult),
                     write_real(value.wd_mult));
}

std::string one_of(const std::vector<std::string>& words) {
  return words.size() == 1 ? words.front() : fmt::format("one of {}", fmt::join(words, ", "));
}

}  // namespace sluice::config
