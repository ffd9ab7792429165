#include "model/python_json.h"

#include <array>
#include <cmath>
#include <limits>

namespace sluice {
namespace {

// Of a private use: no document has it.
constexpr std::string_view kMark = "\uE000";

struct Word {
  std::string_view text;
  double value;
};
constexpr std::array words{Word{"NaN", std::numeric_limits<double>::quiet_NaN()},
                           Word{"Infinity", std::numeric_limits<double>::infinity()},
                           Word{"-Infinity", -std::numeric_limits<double>::infinity()}};

std::string in_quotes(std::string_view word) {
  return std::string("\"").append(kMark).append(word).append("\"");
}

}  // namespace

std::string standard_json(std::string_view text) {
  std::string result;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      result += c;
      if (c == '\\' && i + 1 < text.size()) result += text[++i];
      in_string = c != '"';
      continue;
    }
    in_string = c == '"';
    const Word* found = nullptr;
    for (const Word& word : words) {
      if (text.substr(i).starts_with(word.text)) found = &word;
    }
    if (found == nullptr) {
      result += c;
    } else {
      result += in_quotes(found->text);
      i += found->text.size() - 1;
    }
  }
  return result;
}

std::string python_json(std::string text) {
  for (const Word& word : words) {
    const std::string quoted = in_quotes(word.text);
    for (size_t at = text.find(quoted); at != std::string::npos; at = text.find(quoted, at)) {
      text.replace(at, quoted.size(), word.text);
    }
  }
  return text;
}

std::string marked(double value) {
  const std::string_view word = std::isnan(value) ? words[0].text : value > 0 ? words[1].text : words[2].text;
  return std::string(kMark).append(word);
}

std::optional<double> unmarked(std::string_view string) {
  if (!string.starts_with(kMark)) return {};
  for (const Word& word : words) {
    if (string.substr(kMark.size()) == word.text) return word.value;
  }
  return {};
}

}  // namespace sluice
