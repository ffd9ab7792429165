// What the subcommands share in finding out what to run.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "config/load.h"
#include "model/scale.h"

namespace sluice::cli {

// Options that are short for a key of the configuration.
struct Shortcuts {
  std::optional<std::string> device;
  std::optional<int> threads;
  bool async_comm = false;
};

// Their options, at the end of a command's.
void add_shortcuts(Command& command, Shortcuts& shortcuts);

// The file of a published row by its name ("R4", in any case), if no file is called so; else `name` itself.
std::string file_of_row(const std::string& name);

// The file, or published row, with what the command line says laid over it. Warns of what it asks for and sluice does
// not have.
Config load_settings(const std::string& file, const std::vector<std::string>& overrides,
                     const Shortcuts& shortcuts = {});
// The same for a configuration that is at hand.
Config apply_settings(Config config, const std::vector<std::string>& overrides, const Shortcuts& shortcuts);

// "laptop" and "tiny"; "full" is none.
std::optional<Scale> scale_named(const std::string& word);
// User error unless it is at least 1.
int checked_ranks(int ranks);

// The files with published figures, in the order of their rows. They are looked for in examples/benchmark/configs of
// the working directory, of the directories around the program, and in ../share/sluice beside it. User error when there
// are none.
std::vector<std::string> published_rows();

}  // namespace sluice::cli
