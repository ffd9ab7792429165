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

// Insertions, deletions, substitutions and swaps of neighbours that turn one word into the other.
std::size_t edit_distance(std::string_view a, std::string_view b);
// The candidate that `word` was probably meant to be: the fewest edits, the earlier one of equals; empty when none
// is near (more than a third of the longer word's letters differ, though two edits are always allowed).
std::string nearest(std::string_view word, std::span<const std::string> candidates);

}  // namespace sluice
