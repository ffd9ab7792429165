#include "config/node.h"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <optional>

#include "base/error.h"

namespace sluice::config {
namespace {

bool begins_name(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_';
}
bool in_name(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.';
}

std::string variable(const std::string& name, const std::optional<std::string>& fallback) {
  if (const char* value = std::getenv(name.c_str())) return value;
  if (fallback) return *fallback;
  throw user_error("environment variable {} is not set", name)
      .advise(fmt::format("set it, or give a default: ${{{},default}}", name));
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// What stands between ${ and }.
std::string braced(std::string_view inside) {
  if (inside.starts_with("oc.env:")) inside.remove_prefix(7);
  const std::size_t comma = inside.find(',');
  const std::string name(trim(inside.substr(0, comma)));
  if (name.empty()) throw user_error("${{{}}} names no environment variable", inside);
  if (comma == std::string_view::npos) return variable(name, std::nullopt);
  return variable(name, std::string(trim(inside.substr(comma + 1))));
}

// An unquoted scalar as a JSON number, empty when it is not one.
std::string json_number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  // from_chars would also take "inf" and "nan", which JSON has no word for.
  if (text.empty() || text.find_first_not_of("0123456789.eE+-") != std::string_view::npos) return {};
  std::int64_t integer = 0;
  const char* end = text.data() + text.size();
  if (const auto result = std::from_chars(text.data(), end, integer); result.ec == std::errc{} && result.ptr == end) {
    return fmt::format("{}", integer);
  }
  double real = 0;
  const auto result = std::from_chars(text.data(), end, real);
  return result.ec == std::errc{} && result.ptr == end ? fmt::format("{}", real) : std::string{};
}

}  // namespace

std::string expand_environment(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const std::size_t dollar = text.find('$');
    result += text.substr(0, dollar);
    if (dollar == std::string_view::npos) break;
    text.remove_prefix(dollar + 1);
    const std::size_t close = text.starts_with('{') ? text.find('}') : std::string_view::npos;
    if (close != std::string_view::npos) {
      result += braced(text.substr(1, close - 1));
      text.remove_prefix(close + 1);
    } else if (!text.empty() && begins_name(text.front())) {
      std::size_t length = 1;
      while (length < text.size() && in_name(text[length])) ++length;
      result += variable(std::string(text.substr(0, length)), std::nullopt);
      text.remove_prefix(length);
    } else {
      result += '$';
    }
  }
  return result;
}

std::string json_quote(std::string_view text) {
  std::string result = "\"";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const auto byte = static_cast<unsigned char>(c);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (c == '\n') {
      result += "\\n";
    } else if (c == '\t') {
      result += "\\t";
    } else if (byte < 0x20U || byte == 0x7FU) {
      result += fmt::format("\\u{:04x}", byte);
    } else if (byte == 0xC2U && next >= 0x80U && next < 0xA0U) {  // U+0080 to U+009F, controls too
      result += fmt::format("\\u{:04x}", next);
      ++i;
    } else {
      result += c;
    }
  }
  return result += '"';
}

std::string to_json(const Node& node) {
  switch (node.kind) {
    case Node::Kind::null:
      return "null";
    case Node::Kind::scalar:
      break;
    case Node::Kind::list:
    case Node::Kind::map: {
      const bool map = node.kind == Node::Kind::map;
      std::string result = map ? "{" : "[";
      for (const Node& item : node.items) {
        if (result.size() > 1) result += ", ";
        if (map) result += json_quote(item.key) + ": ";
        result += to_json(item);
      }
      return result += map ? '}' : ']';
    }
  }
  const std::string& text = node.text;
  if (!node.plain) return json_quote(text);
  if (text == "null" || text == "Null" || text == "NULL" || text == "~" || text == "None" || text.empty())
    return "null";
  if (text == "true" || text == "True" || text == "TRUE") return "true";
  if (text == "false" || text == "False" || text == "FALSE") return "false";
  const std::string number = json_number(text);
  return number.empty() ? json_quote(text) : number;
}

}  // namespace sluice::config
