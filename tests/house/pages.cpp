#include "house/pages.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <set>
#include <sstream>
#include <utility>

namespace sluice::house {
namespace {

// What stands between `open` and `close`, in order.
std::vector<std::string> between(std::string_view text, std::string_view open, std::string_view close) {
  std::vector<std::string> found;
  for (std::size_t at = text.find(open); at != std::string_view::npos; at = text.find(open, at)) {
    at += open.size();
    const std::size_t end = text.find(close, at);
    if (end == std::string_view::npos) break;
    found.emplace_back(text.substr(at, end - at));
    at = end + close.size();
  }
  return found;
}

std::vector<std::string> words_in_backticks(std::string_view text) {
  return between(text, "`", "`");
}

std::string section_of(std::string_view page, std::string_view title) {
  const std::string heading = "\n## " + std::string(title) + "\n";
  const std::size_t start = page.find(heading);
  if (start == std::string_view::npos) return "";
  const std::string_view rest = page.substr(start + heading.size());
  return std::string(rest.substr(0, rest.find("\n## ")));
}

// InvertIndex -> invert_index
std::string snake_case(std::string_view name) {
  std::string snake;
  for (const char c : name) {
    const auto letter = static_cast<unsigned char>(c);
    if (std::isupper(letter) != 0 && !snake.empty()) snake += '_';
    snake += static_cast<char>(std::tolower(letter));
  }
  return snake;
}

bool has_token(const SourceFile& file, std::string_view name) {
  return std::ranges::any_of(file.tokens, [&](const Token& token) { return token.text == name; });
}

bool has_word(const SourceFile& file, const std::string& word) {
  return std::ranges::any_of(file.lines, [&](const std::string& line) { return line.find(word) != std::string::npos; });
}

bool makes_operations(const SourceFile& file) {
  constexpr std::array folders{"src/ops/", "src/device/", "tests/ops/", "benchmarks/", "docs/"};
  return std::ranges::any_of(folders, [&](const char* folder) { return file.path.starts_with(folder); });
}

// Identifiers before each brace that is open at a token: of the namespace, class and function it stands in.
std::set<std::string> names_around(const std::vector<Token>& tokens, std::size_t at) {
  std::vector<std::set<std::string>> open;
  std::set<std::string> header;
  for (std::size_t i = 0; i < at; ++i) {
    const std::string& text = tokens[i].text;
    if (text == "{") {
      open.push_back(std::exchange(header, {}));
    } else if (text == "}") {
      if (!open.empty()) open.pop_back();
      header.clear();
    } else if (text == ";") {
      header.clear();
    } else {
      header.insert(text);
    }
  }
  std::set<std::string> names;
  for (std::set<std::string>& one : open) names.merge(one);
  return names;
}

// Does tokens[at], a member function's name, belong to an object of such a name? backend.read, backend()->read
bool called_on(const std::vector<Token>& tokens, std::size_t at, std::string_view object) {
  std::size_t i = at;
  const auto step_over = [&](std::string_view text) {
    if (i == 0 || tokens[i - 1].text != text) return false;
    --i;
    return true;
  };
  if (!step_over(".") && !(step_over(">") && step_over("-"))) return false;
  if (step_over(")")) step_over("(");
  return i > 0 && (tokens[i - 1].text == object || tokens[i - 1].text == std::string(object) + "_");
}

bool reads_device(const std::vector<Token>& tokens, std::size_t at) {
  if (tokens[at].text != "read" || at == 0 || at + 1 == tokens.size()) return false;
  const bool member = tokens[at - 1].text == "." || tokens[at - 1].text == ">";
  const std::string& next = tokens[at + 1].text;
  return member && (next == "<" || (next == "(" && called_on(tokens, at, "backend")));
}

}  // namespace

Violations operation_guide(std::string_view page, const std::vector<SourceFile>& files) {
  const std::string place = "Adding an operation";
  const std::string section = section_of(page, place);
  const std::vector<std::string> words = words_in_backticks(section);
  if (words.empty()) return {{place, "no such section, or it quotes no operation"}};
  const std::string& operation = words.front();

  std::set<std::string> listed;
  std::istringstream lines(section);
  for (std::string line; std::getline(lines, line);) {
    if (std::isdigit(static_cast<unsigned char>(line[0])) == 0) continue;
    for (std::string& file : between(line, "**`", "`**")) listed.insert(std::move(file));
  }
  std::set<std::string> there;
  for (const SourceFile& file : files) {
    const bool page_of_docs = file.path.starts_with("docs/");
    const bool mentions = page_of_docs ? has_word(file, "`" + snake_case(operation) + "`") : has_token(file, operation);
    if (mentions && makes_operations(file)) there.insert(file.path);
  }

  Violations found;
  for (const std::string& file : there) {
    if (!listed.contains(file)) found.push_back({place, fmt::format("{} mentions {} and is no step", file, operation)});
  }
  for (const std::string& file : listed) {
    if (!there.contains(file)) found.push_back({place, fmt::format("{} does not mention {}", file, operation)});
  }
  if (section.find(fmt::format(" {} files", listed.size())) == std::string::npos) {
    found.push_back({place, fmt::format("the steps name {} files, the text does not say so", listed.size())});
  }
  return found;
}

Violations host_reads(std::string_view page, const std::vector<SourceFile>& files) {
  std::set<std::pair<std::string, std::string>> rows;  // file, function or class
  std::istringstream lines{std::string(page)};
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("| `")) continue;
    const std::vector<std::string> words = words_in_backticks(std::string_view(line).substr(0, line.find('|', 1)));
    if (words.size() != 2) return {{line, "a row begins with `file`, `function`"}};
    rows.emplace("src/" + words[0], words[1]);
  }
  Violations found;
  auto unused = rows;
  for (const SourceFile& file : files) {
    const std::string place_in_page = file.path.substr(std::min<std::size_t>(4, file.path.size()));
    for (std::size_t i = 0; i < file.tokens.size(); ++i) {
      const std::string place = fmt::format("{}:{}", file.path, file.tokens[i].line);
      if (file.room() == "device") {
        const bool own = called_on(file.tokens, i, "device") && !file.path.ends_with("_backend.cpp");
        if (file.tokens[i].text == "to_host" && own && page.find("`" + place_in_page + "`") == std::string_view::npos) {
          found.push_back({place, "reads from the device and is not named"});
        }
        continue;
      }
      if (!reads_device(file.tokens, i)) continue;
      const std::set<std::string> names = names_around(file.tokens, i);
      bool listed = false;
      for (const auto& row : rows) {
        if (row.first != file.path || !names.contains(row.second)) continue;
        listed = true;
        unused.erase(row);
      }
      if (!listed) found.push_back({place, "reads from the device and has no row"});
    }
  }
  for (const auto& [file, name] : unused) found.push_back({file, fmt::format("{} does not read there", name)});
  return found;
}

}  // namespace sluice::house
