// C++ sources as the house rules see them: code tokens and preprocessor lines, without comments and literals.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::house {

struct Token {
  std::string text;  // an identifier, a number, or one character of punctuation
  int line;
};

// `#name rest`, continuation lines joined.
struct Directive {
  std::string name;
  std::string rest;
  int line;
};

struct SourceFile {
  std::string path;  // from the repository's root, e.g. src/base/log.h
  std::vector<std::string> lines;
  std::vector<Token> tokens;
  std::vector<Directive> directives;

  bool is_header() const { return path.ends_with(".h"); }
  // The folder below src/, empty for files elsewhere.
  std::string room() const;
};

SourceFile scan(std::string path, std::string_view text);

// Every .h and .cpp below root/folder, by name.
std::vector<SourceFile> scan_folder(const std::filesystem::path& root, const std::string& folder);

// The rooms in order of dependence, from `set(rooms ...)` of the text of src/CMakeLists.txt.
std::vector<std::string> room_order(std::string_view cmake);

}  // namespace sluice::house
