// A subcommand as data: its words, where each option's value goes, and what it does. One file per subcommand makes its
// Command; parser.cpp alone knows the library that reads the command line.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace sluice::cli {

struct Option {
  using Target = std::variant<bool*, int*, std::optional<int>*, double*, std::optional<std::string>*, std::string*,
                              std::vector<std::string>*>;

  std::string name;  // "--ranks"; a word without dashes ("FILE") is an argument by place
  Target target;     // keeps its value when the option is not given
  std::string help;
  std::string placeholder = {};         // "N": what stands for the value in the help
  std::vector<std::string> words = {};  // the values there are, where they are few
  bool required = false;                // of an argument by place
  bool value_optional = false;          // its value, a directory, may be left out: then it is empty
};

struct Command {
  std::string name;
  std::string summary;  // one line
  std::string details;  // what else --help says, may be empty
  std::vector<Option> options;
  // Gets "--section.key value" settings as config::apply_overrides takes them; null: there are none.
  std::vector<std::string>* overrides = nullptr;
  // Gets the words behind "--", which are another command's; null: there are none.
  std::vector<std::string>* rest = nullptr;
  // Refused where a launcher has started several processes of it.
  bool one_process = false;
  // Returns the exit code; its options live as long as this does.
  std::function<int()> run;
};

Command bench_command();
Command train_command();
Command eval_command();
Command generate_command();
Command convert_command();
Command config_command();
Command plan_command();
Command launch_command();
Command doctor_command();

// All of them, in the order they are listed.
std::vector<Command> all_commands();

}  // namespace sluice::cli
