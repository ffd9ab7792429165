// From the words of the command line to a subcommand that has its options. Mistakes are user errors with the nearest
// word there is.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "cli/command.h"

namespace sluice::cli {

struct Parsed {
  Command* command = nullptr;  // null: `text` is the answer
  std::string text;            // help, version, or what one can do next
};

// `arguments` without the program's name. Values are written to the targets of `commands`.
Parsed parse(std::vector<Command>& commands, std::span<const std::string> arguments);

// What a person sees who gives no command.
std::string welcome(const std::vector<Command>& commands);

}  // namespace sluice::cli
