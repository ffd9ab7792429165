// JSON as Python's json module writes it: NaN, Infinity and -Infinity are numbers there, and are not in the standard.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sluice {

// The text with these three, where they stand as values, replaced by marked strings; all else and the lines stay.
std::string standard_json(std::string_view text);
// A standard text with marked strings made numbers again.
std::string python_json(std::string text);

// A marked string for a number that is not finite, and back; nothing for any other string.
std::string marked(double value);
std::optional<double> unmarked(std::string_view string);

}  // namespace sluice
