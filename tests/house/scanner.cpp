#include "house/scanner.h"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <sstream>
#include <utility>

#include "base/file.h"

namespace sluice::house {
namespace {

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}
bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r';
}

// One pass over the text; each member function consumes one kind of thing at `at_`.
class Lexer {
 public:
  Lexer(std::string_view text, SourceFile& file) : text_(text), file_(file) {}

  void run() {
    bool line_start = true;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '\n') {
        line_start = true;
        advance();
      } else if (is_blank(c)) {
        advance();
      } else if (starts("//")) {
        skip_to("\n");
      } else if (starts("/*")) {
        skip_past("*/");
      } else if (c == '#' && line_start) {
        directive();
      } else {
        line_start = false;
        code(c);
      }
    }
  }

 private:
  bool starts(std::string_view what) const { return text_.substr(at_).starts_with(what); }

  void advance(std::size_t count = 1) {
    for (const std::size_t end = std::min(at_ + count, text_.size()); at_ < end; ++at_)
      line_ += text_[at_] == '\n' ? 1 : 0;
  }
  void skip_to(std::string_view what) { advance(std::min(text_.find(what, at_), text_.size()) - at_); }
  void skip_past(std::string_view what) {
    skip_to(what);
    advance(what.size());
  }

  void code(char c) {
    if (starts("R\"")) {
      raw_string();
    } else if (c == '"' || c == '\'') {
      quoted(c);
    } else if (is_word(c)) {
      word();
    } else {
      file_.tokens.push_back({std::string(1, c), line_});
      advance();
    }
  }

  void raw_string() {
    const std::size_t open = text_.find('(', at_);
    if (open == std::string_view::npos) return advance(text_.size());
    const std::string close = ")" + std::string(text_.substr(at_ + 2, open - at_ - 2)) + "\"";
    skip_past(close);
  }

  void quoted(char quote) {
    advance();
    while (at_ < text_.size() && text_[at_] != quote && text_[at_] != '\n') advance(text_[at_] == '\\' ? 2 : 1);
    advance();
  }

  // Digit separators belong to the number.
  void word() {
    const std::size_t start = at_;
    const bool number = std::isdigit(static_cast<unsigned char>(text_[at_])) != 0;
    std::size_t end = at_;
    while (end < text_.size() && (is_word(text_[end]) || (number && (text_[end] == '\'' || text_[end] == '.')))) ++end;
    file_.tokens.push_back({std::string(text_.substr(start, end - start)), line_});
    advance(end - start);
  }

  void directive() {
    const int line = line_;
    std::string body;
    advance();
    while (at_ < text_.size() && text_[at_] != '\n' && !starts("//")) {
      if (starts("\\\n")) {
        body += ' ';
        advance(2);
      } else {
        body += text_[at_];
        advance();
      }
    }
    std::istringstream words(body);
    Directive found{.name = "", .rest = "", .line = line};
    words >> found.name;
    std::getline(words >> std::ws, found.rest);
    while (!found.rest.empty() && is_blank(found.rest.back())) found.rest.pop_back();
    file_.directives.push_back(std::move(found));
  }

  std::string_view text_;
  SourceFile& file_;
  std::size_t at_ = 0;
  int line_ = 1;
};

}  // namespace

std::string SourceFile::room() const {
  if (!path.starts_with("src/")) return "";
  const std::string below = path.substr(4);
  return below.substr(0, std::min(below.find('/'), below.size()));
}

SourceFile scan(std::string path, std::string_view text) {
  SourceFile file;
  file.path = std::move(path);
  std::istringstream stream{std::string(text)};
  for (std::string line; std::getline(stream, line);) file.lines.push_back(line);
  Lexer(text, file).run();
  return file;
}

std::vector<SourceFile> scan_folder(const std::filesystem::path& root, const std::string& folder) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root / folder)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".h" || extension == ".cpp" || extension == ".cu")
      paths.push_back(entry.path().lexically_relative(root).string());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<SourceFile> files;
  for (const std::string& path : paths) files.push_back(scan(path, read_file(root / path, 1 << 22)));
  return files;
}

std::vector<std::string> room_order(std::string_view cmake) {
  constexpr std::string_view open = "set(rooms ";
  const std::size_t start = cmake.find(open);
  if (start == std::string_view::npos) return {};
  const std::string_view list = cmake.substr(start + open.size());
  std::istringstream words{std::string(list.substr(0, list.find(')')))};
  std::vector<std::string> rooms;
  for (std::string room; words >> room;) rooms.push_back(room);
  return rooms;
}

}  // namespace sluice::house
