// The rules of the house, each a pure function from sources to violations. docs/architecture.md gives the reasons.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "house/scanner.h"

namespace sluice::house {

struct Violation {
  std::string place;  // file:line, or the object file and symbol
  std::string rule;
};

using Violations = std::vector<Violation>;

// "place: rule", one a line.
std::string listing(const Violations& violations);

// A room includes only itself and the rooms above it; quotes are for files of the house.
Violations include_order(const SourceFile& file, const std::vector<std::string>& rooms);
// No thread_local and no static variable that can change, but in base/log.*.
Violations no_mutable_statics(const SourceFile& file);
// The same by what the compiler made: writable symbols of namespace sluice in `symbols`, the output of
// `nm --defined-only -C -A -f posix` on a room's library, that no file of the room declares const.
Violations no_writable_symbols(std::string_view symbols, const std::vector<SourceFile>& room);
// Modules do not know their platform: no #if in nn, model, parallel, trainer, twin, training, generation.
Violations no_conditionals(const SourceFile& file);
// Headers that take seconds to compile appear in few .cpp files and in no header.
Violations heavy_headers(const std::vector<SourceFile>& files);
// 600 lines are a sign to split.
Violations short_files(const SourceFile& file);
// What is unfinished is an issue, not a comment.
Violations no_unfinished_marks(const SourceFile& file);
// A header has #pragma once and opens with a comment: its contract.
Violations headers_open_with_contract(const SourceFile& file);
// Only main ends the process; everything else throws.
Violations no_exit(const SourceFile& file);

}  // namespace sluice::house
