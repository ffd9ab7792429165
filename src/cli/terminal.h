// What is written where: results on stdout, progress and errors on stderr. Colour and moving lines only on a terminal.
#pragma once

#include <string>
#include <string_view>

namespace sluice::cli {

// Columns of the terminal stderr is; 0 when it is none, or one that understands no control codes.
size_t watched_width();

// Columns that lines on stdout may take: those of its terminal (COLUMNS overrides them), from 80 to 100; 100 where it
// is no terminal.
size_t page_width();

// To be called before any file is opened: one that took the number of a closed stdout or stderr would receive what is
// printed.
void keep_standard_descriptors();
// To stdout.
void print(std::string_view text);
// To stderr: "error: " and the text.
void print_error(std::string_view text);
// Writes out what stdout still holds; a runtime error if it cannot be (a full disk).
void finish_output();

// Breaks at spaces so that no line is longer than `width`; lines after the first begin with `indent` spaces.
std::string wrap(std::string_view text, size_t width, size_t indent);

}  // namespace sluice::cli
