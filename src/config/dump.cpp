#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <iterator>
#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "config/load.h"
#include "config/schema.h"

namespace sluice::config {
namespace {

// One line of the resolved configuration.
struct Line {
  std::string key;
  std::string text;
};

// Every value in the order of the schema; the model's own fields stand where their section is.
std::vector<Line> lines_of(const Config& config) {
  Config copy = config;
  const Schema schema = bind(copy);
  std::vector<Line> lines;
  bool in_open = false;
  const auto add_open = [&] {
    for (const HubField& field : copy.model.config.overrides.fields) {
      lines.push_back({fmt::format("{}.{}", schema.open_section.key, field.key), field.json});
    }
  };
  for (const Field& field : schema.fields) {
    const bool now = parent(field.key) == schema.open_section.key;
    if (in_open && !now) add_open();
    in_open = now;
    lines.push_back({field.key, field.write()});
  }
  if (in_open) add_open();
  return lines;
}

std::vector<std::string_view> split(std::string_view key) {
  std::vector<std::string_view> parts;
  for (std::size_t dot; (dot = key.find('.')) != std::string_view::npos; key.remove_prefix(dot + 1)) {
    parts.push_back(key.substr(0, dot));
  }
  parts.push_back(key);
  return parts;
}

// A part of a key as YAML reads it back: those of the model's own fields may hold anything.
std::string key_text(std::string_view part) {
  const bool plain = !part.empty() && std::ranges::all_of(part, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
  });
  return plain ? std::string(part) : json_quote(part);
}

std::string comment(const Origin& origin) {
  return origin.kind == Origin::Kind::preset ? "preset" : printable_line(origin.text);
}

// Continued lines are comments too.
std::string comment_lines(const std::string& text, std::size_t width) {
  std::string result = "# ";
  for (const char c : wrap(text, width == std::string::npos ? width : width - 2, 4)) {
    result += c;
    if (c == '\n') result += "# ";
  }
  return result + "\n";
}

bool under(std::string_view key, std::string_view section) {
  return section.empty() || key == section || (key.starts_with(section) && key[section.size()] == '.');
}

}  // namespace

std::string to_yaml(const Config& config, Show show, std::size_t width) {
  constexpr std::size_t wide_page = 100;
  const std::size_t comment_column = width < wide_page ? 48 : 56;
  std::string text;
  std::vector<std::string_view> open;
  const std::vector<Line> lines = lines_of(config);
  for (const Line& line : lines) {
    const Origin origin = config.origin(line.key);
    if (show == Show::given && origin.kind == Origin::Kind::preset) continue;
    std::vector<std::string_view> parts = split(line.key);
    const std::string_view name = parts.back();
    parts.pop_back();
    const auto common = static_cast<std::size_t>(std::ranges::mismatch(parts, open).in1 - parts.begin());
    for (std::size_t depth = common; depth < parts.size(); ++depth) {
      text += fmt::format("{:{}}{}:\n", "", 2 * depth, key_text(parts[depth]));
    }
    const std::string indent(2 * parts.size(), ' ');
    const std::string entry = fmt::format("{}{}: {}", indent, key_text(name), line.text);
    const std::size_t column = std::max(columns_of(entry) + 2, comment_column);
    std::string from = "# " + comment(origin);
    const auto fits = [&] { return column + columns_of(from) <= width; };
    if (const std::size_t slash = from.rfind('/'); !fits() && slash != std::string::npos) {
      from = "# " + from.substr(slash + 1);
    }
    if (fits()) {
      text += fmt::format("{}{:{}}{}\n", entry, "", column - columns_of(entry), from);
    } else {
      text += fmt::format("{}{}\n{}\n", indent, from, entry);
    }
    open = std::move(parts);
  }
  if (!config.ignored.empty()) text += "# given, without effect here:\n";
  for (const IgnoredKey& ignored : config.ignored) {
    text += comment_lines(
        fmt::format("  {} ({}): {}", printable_line(ignored.key), printable_line(ignored.where), ignored.reason),
        width);
  }
  const std::vector<Unavailable> missing = unavailable(config);
  if (!missing.empty()) text += "# asked for, not available here:\n";
  for (const Unavailable& each : missing) {
    text += comment_lines(
        fmt::format("  {} {} ({}): {}", each.key, each.value, printable_line(each.where), each.instead), width);
  }
  return text;
}

std::map<std::string, std::string> values(const Config& config) {
  std::map<std::string, std::string> values;
  for (const Line& line : lines_of(config)) values[line.key] = line.text;
  return values;
}

std::vector<Change> differences(const Config& before, const Config& after) {
  const std::vector<Line> old_lines = lines_of(before);
  const std::vector<Line> new_lines = lines_of(after);
  const auto find = [](const std::vector<Line>& lines, std::string_view key) -> std::optional<std::string> {
    const auto found = std::ranges::find(lines, key, [](const Line& line) -> std::string_view { return line.key; });
    return found == lines.end() ? std::nullopt : std::optional(found->text);
  };
  std::vector<Change> changes;
  for (const Line& line : new_lines) {
    const std::optional<std::string> old = find(old_lines, line.key);
    if (!old || *old != line.text) changes.push_back({line.key, old.value_or("unset"), line.text});
  }
  for (const Line& line : old_lines) {
    if (!find(new_lines, line.key)) changes.push_back({line.key, line.text, "unset"});
  }
  return changes;
}

std::vector<KeyInfo> keys(std::string_view section) {
  Config presets;
  const Schema schema = bind(presets);
  std::vector<KeyInfo> result;
  for (const Field& field : schema.fields) {
    if (under(field.key, section)) result.push_back({field.key, field.type, field.write(), field.doc});
  }
  if (under(schema.open_section.key, section)) {
    result.push_back({schema.open_section.key + ".*", "any", "unset", schema.open_section.doc});
  }
  for (const Described& ignored : schema.ignored) {
    if (under(ignored.key, section)) result.push_back({ignored.key, "", "", ignored.doc, KeyInfo::Kind::ignored});
  }
  for (const Described& refused : schema.refused) {
    if (under(refused.key, section)) result.push_back({refused.key, "", "", refused.doc, KeyInfo::Kind::refused});
  }
  for (const Renamed& renamed : schema.renamed) {
    if (under(renamed.old, section)) result.push_back({renamed.old, "", "", renamed.now, KeyInfo::Kind::renamed});
  }
  if (result.empty()) throw unknown_key(schema, section);
  return result;
}

std::string describe_keys(std::string_view section) {
  std::string values;
  std::string ignored;
  std::string refused;
  std::string renamed;
  for (const KeyInfo& info : keys(section)) {
    switch (info.kind) {
      case KeyInfo::Kind::value:
        values += fmt::format("{}: {}\n    {}\n    {}\n", info.key, info.preset, info.doc, info.type);
        break;
      case KeyInfo::Kind::ignored:
        ignored += fmt::format("  {}: {}\n", info.key, info.doc);
        break;
      case KeyInfo::Kind::refused:
        refused += fmt::format("  {}: {}\n", info.key, info.doc);
        break;
      case KeyInfo::Kind::renamed:
        renamed += fmt::format("  {}: now {}\n", info.key, info.doc);
        break;
    }
  }
  if (!ignored.empty()) values += "read, without effect:\n" + ignored;
  if (!refused.empty()) values += "refused:\n" + refused;
  if (!renamed.empty()) values += "older names:\n" + renamed;
  return values;
}

}  // namespace sluice::config
