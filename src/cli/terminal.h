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
// Whether stdout is a terminal.
bool prints_to_terminal();
// To stdout, made printable: nothing a user named can move the cursor.
void print(std::string_view text);
// To stdout as it is, for who does not read it on a terminal.
void print_bytes(std::string_view bytes);
// To stderr: "error: " and the text, made printable, its lines broken on a terminal.
void print_error(std::string_view text);
// For a run that leaves more than what it prints: a reader of stdout or stderr that goes (`| head`) does not end it.
void outlive_readers();
// Writes out what stdout still holds; a runtime error if it cannot be (a full disk). Of a reader that went before the
// end it only warns.
void finish_output();

}  // namespace sluice::cli
