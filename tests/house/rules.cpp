#include "house/rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <set>
#include <sstream>
#include <utility>

namespace sluice::house {
namespace {

constexpr std::size_t max_lines = 600;

// A header, the largest number of .cpp files below src/ that may include it.
struct Heavy {
  std::string_view header;
  std::size_t users;
};
constexpr std::array heavy{Heavy{"CLI/", 2},    Heavy{"nlohmann/json.hpp", 7}, Heavy{"yaml-cpp/", 2},
                           Heavy{"spdlog/", 1}, Heavy{"cudnn_frontend", 1},    Heavy{"nvtx3/", 1}};

std::string place(const SourceFile& file, int line) {
  return fmt::format("{}:{}", file.path, line);
}

bool is_log(const SourceFile& file) {
  return file.path.starts_with("src/base/log.");
}

bool is_identifier(const std::string& text) {
  return !text.empty() && (std::isalpha(static_cast<unsigned char>(text[0])) != 0 || text[0] == '_');
}

// The last identifier of a demangled variable: sluice::f(int)::table[abi:cxx11] -> table.
std::string last_name(std::string_view symbol) {
  const std::size_t bracket = symbol.find('[');
  if (bracket != std::string_view::npos) symbol = symbol.substr(0, bracket);
  const std::size_t colon = symbol.rfind("::");
  return std::string(colon == std::string_view::npos ? symbol : symbol.substr(colon + 2));
}

// Does the statement that declares tokens[at] make it const itself, not only what it points to?
bool const_before(const std::vector<Token>& tokens, std::size_t at) {
  int depth = 0;  // inside template arguments, read from the right
  for (std::size_t i = at; i-- > 0;) {
    const std::string& text = tokens[i].text;
    if (text == ";" || text == "{" || text == "}") return false;
    if (text == ">") ++depth;
    if (text == "<") --depth;
    if (text == "constexpr") return true;
    if (depth == 0 && text == "const") return true;
    if (depth == 0 && text == "*") {
      // `const char* x` can change; what stands left of the star does not matter, but for constexpr.
      while (i-- > 0 && tokens[i].text != ";" && tokens[i].text != "{" && tokens[i].text != "}") {
        if (tokens[i].text == "constexpr") return true;
      }
      return false;
    }
  }
  return false;
}

bool declared_const(const std::string& name, const std::vector<SourceFile>& room) {
  for (const SourceFile& file : room) {
    for (std::size_t i = 0; i < file.tokens.size(); ++i) {
      if (file.tokens[i].text == name && const_before(file.tokens, i)) return true;
    }
  }
  return false;
}

// One line of nm's posix output: "library[object.o]: demangled name TYPE value size".
struct Symbol {
  std::string object;
  std::string name;
  char type = '?';
};

Symbol parse_symbol(const std::string& line) {
  Symbol symbol;
  const std::size_t colon = line.find("]: ");
  const std::size_t open = line.rfind('[', colon);
  if (colon == std::string::npos || open == std::string::npos) return symbol;
  symbol.object = line.substr(open + 1, colon - open - 1);
  std::vector<std::string> words;
  std::istringstream stream(line.substr(colon + 3));
  for (std::string word; stream >> word;) words.push_back(word);
  // The end is "TYPE value size"; symbols without a size lack the last word.
  const auto is_type = [&](std::size_t from_end) {
    return words.size() > from_end && words[words.size() - from_end].size() == 1 &&
           std::isalpha(static_cast<unsigned char>(words[words.size() - from_end][0])) != 0;
  };
  const std::size_t from_end = is_type(3) ? 3 : 2;
  if (!is_type(from_end)) return symbol;
  words.resize(words.size() - from_end + 1);
  symbol.type = words.back()[0];
  words.pop_back();
  symbol.name = fmt::format("{}", fmt::join(words, " "));
  return symbol;
}

bool is_variable(const Symbol& symbol) {
  if (std::string_view("bBdDuVvC").find(symbol.type) == std::string_view::npos) return false;
  // Tables that the compiler writes.
  for (const char* made : {"vtable for ", "typeinfo for ", "typeinfo name for ", "VTT for ", "guard variable for "}) {
    if (symbol.name.starts_with(made)) return false;
  }
  return symbol.name.starts_with("sluice::");
}

bool is_exempt(const Symbol& symbol) {
  // Highway writes its tables of function pointers once, as constants behind a macro.
  return symbol.object.starts_with("log.cpp") || symbol.name.find("HighwayDispatchTable") != std::string::npos;
}

}  // namespace

std::string listing(const Violations& violations) {
  std::string text;
  for (const Violation& violation : violations) text += fmt::format("{}: {}\n", violation.place, violation.rule);
  return text;
}

Violations include_order(const SourceFile& file, const std::vector<std::string>& rooms) {
  Violations found;
  const std::string here = file.room();
  const auto own = std::find(rooms.begin(), rooms.end(), here);
  if (own == rooms.end()) return {{place(file, 1), fmt::format("{} is no room of src/CMakeLists.txt", here)}};
  for (const Directive& directive : file.directives) {
    if (directive.name != "include" || !directive.rest.starts_with('"')) continue;
    const std::string target = directive.rest.substr(1, directive.rest.find('/') - 1);
    const auto other = std::find(rooms.begin(), rooms.end(), target);
    if (other == rooms.end()) {
      found.push_back({place(file, directive.line), fmt::format("{} is not \"room/file.h\"", directive.rest)});
    } else if (other > own) {
      found.push_back({place(file, directive.line),
                       fmt::format("{} may not include {}: {} lies below", here, directive.rest, target)});
    }
  }
  return found;
}

Violations no_mutable_statics(const SourceFile& file) {
  Violations found;
  if (is_log(file)) return found;
  const std::vector<Token>& tokens = file.tokens;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].text == "thread_local")
      found.push_back({place(file, tokens[i].line), "thread_local is only for base/log"});
    if (tokens[i].text != "static") continue;
    std::size_t end = i;
    while (end < tokens.size() && std::string_view("(={;").find(tokens[end].text) == std::string_view::npos) ++end;
    if (end == tokens.size() || tokens[end].text == "(" || !is_identifier(tokens[end - 1].text)) continue;
    if (!const_before(tokens, end - 1)) {
      found.push_back({place(file, tokens[i].line), fmt::format("static {} can change", tokens[end - 1].text)});
    }
  }
  return found;
}

Violations no_writable_symbols(std::string_view symbols, const std::vector<SourceFile>& room) {
  Violations found;
  std::set<std::string> seen;
  std::istringstream stream{std::string(symbols)};
  for (std::string line; std::getline(stream, line);) {
    const Symbol symbol = parse_symbol(line);
    if (!is_variable(symbol) || is_exempt(symbol) || !seen.insert(symbol.object + symbol.name).second) continue;
    if (!declared_const(last_name(symbol.name), room)) {
      found.push_back(
          {fmt::format("{}: {}", symbol.object, symbol.name), "a variable that outlives its function can change"});
    }
  }
  return found;
}

Violations no_conditionals(const SourceFile& file) {
  static const std::set<std::string> rooms{"nn", "model", "parallel", "trainer", "twin", "training", "generation"};
  Violations found;
  if (!rooms.contains(file.room())) return found;
  for (const Directive& directive : file.directives) {
    if (directive.name.starts_with("if")) {
      found.push_back({place(file, directive.line),
                       fmt::format("#{} in {}: choose by linking or a table", directive.name, file.room())});
    }
  }
  return found;
}

Violations heavy_headers(const std::vector<SourceFile>& files) {
  Violations found;
  for (const Heavy& rule : heavy) {
    std::set<std::string> users;
    for (const SourceFile& file : files) {
      for (const Directive& directive : file.directives) {
        if (directive.name != "include" || !directive.rest.substr(1).starts_with(rule.header)) continue;
        users.insert(file.path);
        if (file.is_header()) found.push_back({place(file, directive.line), directive.rest + " in a header"});
      }
    }
    if (users.size() <= rule.users) continue;
    for (const std::string& user : users) {
      found.push_back(
          {user + ":1", fmt::format("one of {} users of <{}>, {} are allowed", users.size(), rule.header, rule.users)});
    }
  }
  return found;
}

Violations short_files(const SourceFile& file) {
  if (file.lines.size() <= max_lines) return {};
  return {{place(file, static_cast<int>(max_lines) + 1),
           fmt::format("{} lines, more than {}", file.lines.size(), max_lines)}};
}

Violations no_unfinished_marks(const SourceFile& file) {
  // Written in halves: this file obeys the rule too.
  constexpr std::array marks{
      "TO"
      "DO",
      "FIX"
      "ME",
      "XX"
      "X",
      "HA"
      "CK"};
  Violations found;
  for (std::size_t i = 0; i < file.lines.size(); ++i) {
    for (const char* mark : marks) {
      if (file.lines[i].find(mark) != std::string::npos)
        found.push_back({place(file, static_cast<int>(i) + 1), fmt::format("unfinished mark {}", mark)});
    }
  }
  return found;
}

Violations headers_open_with_contract(const SourceFile& file) {
  Violations found;
  if (!file.is_header()) return found;
  if (file.lines.empty() || !file.lines[0].starts_with("//"))
    found.push_back({place(file, 1), "a header opens with its contract"});
  const bool guarded = std::any_of(file.directives.begin(), file.directives.end(), [](const Directive& directive) {
    return directive.name == "pragma" && directive.rest == "once";
  });
  // Highway's -inl.h files are read once for every instruction set.
  if (!guarded && !file.path.ends_with("-inl.h")) found.push_back({place(file, 1), "no #pragma once"});
  return found;
}

Violations no_exit(const SourceFile& file) {
  static const std::set<std::string> enders{"exit", "_exit", "_Exit", "quick_exit"};
  Violations found;
  // A signal's handler cannot throw.
  if (file.path == "src/cli/main.cpp" || file.path == "src/cli/lost_file.cpp") return found;
  for (std::size_t i = 0; i + 1 < file.tokens.size(); ++i) {
    if (enders.contains(file.tokens[i].text) && file.tokens[i + 1].text == "(") {
      found.push_back({place(file, file.tokens[i].line), file.tokens[i].text + "() outside of main: throw"});
    }
  }
  return found;
}

}  // namespace sluice::house
