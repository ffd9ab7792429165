// Numbers and words as a person reads them. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace sluice {

// "17 B", "1.50 KiB", "72.6 GiB": three figures, binary units.
std::string format_bytes(std::uint64_t bytes);
// "-1,234,567".
std::string format_count(std::int64_t count);
// "512", "5.25 M", "671.03 B", "1.0264 T" (thousand, million, billion, trillion: K M B T): parameter counts.
std::string format_magnitude(double value);
// "350 us", "12.3 ms", "1.92 s", "4 min 12 s", "2 h 05 min".
std::string format_duration(double seconds);
// "0:09", "12:05", "1:02:03": a time to go.
std::string format_clock(double seconds);

// "42.9 %"; `beyond` where the share is above one, which no printed share is: what it was divided by was no bound then.
std::string format_share(double share, int decimals, std::string_view beyond);

// Bytes of the UTF-8 character that `text` begins with; 0 if it begins with none.
std::size_t utf8_length(std::string_view text);
// Columns a UTF-8 text of one line takes: one a character.
std::size_t columns_of(std::string_view text);
// The first `columns` of it.
std::string_view clipped(std::string_view text, std::size_t columns);
// Breaks each line at spaces so that none has more than `width` columns, but for longer words; what is broken goes on
// behind `indent` spaces.
std::string wrap(std::string_view text, std::size_t width, std::size_t indent);

// Makes text from outside safe to show: control characters (C0 but for newline and tab, DEL, C1) and bytes that are no
// UTF-8 become "\x1b", for they could move a terminal's cursor or change what it showed before. Texts may come in
// parts that end within a character.
class Printable {
 public:
  // What is whole of the text so far.
  std::string add(std::string_view text);
  // What was left.
  std::string finish();

 private:
  std::string pending_;
};
std::string printable(std::string_view text);
// The same of what has its place in one line, a file's name: newline and tab become "\x0a", "\x09".
std::string printable_line(std::string_view text);
// The text as one word of a shell's command: as it is, or in quotes where the shell would see more in it.
std::string quoted_for_shell(std::string_view text);

// Insertions, deletions, substitutions and swaps of neighbours that turn one word into the other.
std::size_t edit_distance(std::string_view a, std::string_view b);
// The candidate that `word` was probably meant to be: the fewest edits, the earlier one of equals; empty when none
// is near (more than a third of the longer word's letters differ, though two edits are always allowed).
std::string nearest(std::string_view word, std::span<const std::string> candidates);

}  // namespace sluice
