// What bytes are that were taken for something else: told by how files of well-known formats begin, and by how text
// looks.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sluice {

struct FileFormat {
  std::string_view name;         // "a PNG image", "a Git LFS pointer"
  std::string_view remedy = {};  // what to do where another format was expected; may be empty
  bool text = false;             // it is text of its kind
};

// The format that a file beginning with `head` is of; null for one without a mark of its own. 512 bytes are enough.
const FileFormat* format_of(std::string_view head);

// Whether bytes from anywhere in a file look like no text: more than one in fifty is a NUL or another control character
// that text does without. Any encoding that has ASCII's control characters passes: UTF-8, Latin-1, Shift-JIS.
bool looks_binary(std::string_view bytes);

}  // namespace sluice
