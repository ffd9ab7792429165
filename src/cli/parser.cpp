#include "cli/parser.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

#include "base/error.h"
#include "base/text.h"
#include "cli/version.h"
#include "config/load.h"

namespace sluice::cli {
namespace {

// The command line without the settings of the configuration, and those.
struct Split {
  std::vector<std::string> words;
  std::vector<std::string> overrides;
};

// The first words of all keys: "distributed", "seed".
std::set<std::string> sections() {
  std::set<std::string> names;
  for (const config::KeyInfo& key : config::keys()) names.insert(key.key.substr(0, key.key.find('.')));
  return names;
}

// Whether what follows an option whose value, a directory, may be left out is that value.
bool is_optional_value(std::span<const std::string> arguments, size_t next) {
  if (next >= arguments.size() || arguments[next].starts_with("--")) return false;
  std::error_code failed;
  return !std::filesystem::is_regular_file(arguments[next], failed);
}

// "--distributed.ep_size 4" and "--seed=3" are settings: the name has a dot or begins a key. The word behind one is its
// value unless it begins with two dashes.
Split split(const Command& command, std::span<const std::string> arguments) {
  const std::set<std::string> known = sections();
  Split result;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    const std::string name = word.starts_with("--") ? word.substr(2, word.find('=') - 2) : "";
    if (name.find('.') == std::string::npos && !known.contains(name)) {
      result.words.push_back(word);
      const bool may_lack = std::ranges::any_of(
          command.options, [&](const Option& option) { return option.value_optional && option.name == word; });
      if (may_lack && !is_optional_value(arguments, i + 1)) result.words.emplace_back();
      continue;
    }
    result.overrides.push_back(word);
    const bool has_value = word.find('=') != std::string::npos;
    if (!has_value && i + 1 < arguments.size() && !arguments[i + 1].starts_with("--")) {
      result.overrides.push_back(arguments[++i]);
    }
  }
  return result;
}

CLI::Option* declare(CLI::App& app, const Option& option) {
  return std::visit(
      [&](auto* target) -> CLI::Option* {
        if constexpr (std::is_same_v<decltype(target), bool*>) {
          return app.add_flag(option.name, *target, option.help);
        } else {
          return app.add_option(option.name, *target, option.help);
        }
      },
      option.target);
}

void declare_all(CLI::App& app, const Command& command) {
  for (const Option& option : command.options) {
    CLI::Option* declared = declare(app, option);
    if (!option.placeholder.empty()) declared->option_text(option.placeholder);
    if (!option.words.empty()) declared->check(CLI::IsMember(option.words))->option_text(option.placeholder);
    if (option.required) declared->required();
    // A list of an option grows with each time it is given.
    if (option.name.starts_with("-")) declared->allow_extra_args(false);
    declared->type_name("");
  }
  app.allow_extras();
  std::string footer = command.details;
  if (command.overrides != nullptr) {
    if (!footer.empty()) footer += "\n\n";
    footer += "  --SECTION.KEY VALUE         sets a key of the configuration (sluice config --keys lists them)";
  }
  app.footer(footer);
}

// "did you mean --ranks?", or where to look.
std::string advice(const Command& command, const std::string& word) {
  if (command.rest != nullptr && !word.starts_with("-")) return "the command to start stands behind --";
  std::vector<std::string> names;
  for (const Option& option : command.options) {
    if (option.name.starts_with("-")) names.push_back(option.name);
  }
  const std::string near = nearest(word.substr(0, word.find('=')), names);
  const std::string list = fmt::format("sluice {} --help lists the options", command.name);
  return near.empty() ? list : fmt::format("did you mean {}? {}", near, list);
}

// Some of the library's messages say less than it knows.
std::string reworded(const Command& command, const CLI::ParseError& error) {
  std::string text = error.what();
  if (text.ends_with("missing")) return text.substr(0, text.find(':')) + " needs a value";
  constexpr std::string_view conversion = "Could not convert: ";
  if (!text.starts_with(conversion)) return text;
  const size_t equals = text.find(" = ");
  if (equals == std::string::npos) return text;
  const std::string name = text.substr(conversion.size(), equals - conversion.size());
  const bool real = std::ranges::any_of(command.options, [&](const Option& option) {
    return option.name == name && std::holds_alternative<double*>(option.target);
  });
  return fmt::format("{} takes a {}number, not {}", name, real ? "" : "whole ", text.substr(equals + 3));
}

Command& find_command(std::vector<Command>& commands, const std::string& word) {
  std::vector<std::string> names;
  for (Command& command : commands) {
    if (command.name == word) return command;
    names.push_back(command.name);
  }
  const std::string near = nearest(word, names);
  throw user_error("{} is not a command of sluice", word)
      .at("command line")
      .advise(near.empty() ? "sluice --help lists the commands" : fmt::format("did you mean sluice {}?", near));
}

}  // namespace

Parsed parse(std::vector<Command>& commands, std::span<const std::string> arguments) {
  if (arguments.empty()) return {nullptr, welcome(commands)};
  const std::string& first = arguments.front();
  if (first == "--version") return {nullptr, fmt::format("sluice {} ({})\n", version(), commit())};
  if (first == "--help" || first == "-h" || first == "help") return {nullptr, welcome(commands)};

  Command& command = find_command(commands, first);
  CLI::App app(command.summary, "sluice " + command.name);
  app.get_formatter()->column_width(30);
  declare_all(app, command);

  std::span<const std::string> own = arguments.subspan(1);
  if (command.rest != nullptr) {
    const auto dashes = std::ranges::find(own, "--");
    command.rest->assign(dashes == own.end() ? dashes : dashes + 1, own.end());
    own = own.first(static_cast<size_t>(dashes - own.begin()));
  }
  Split given = split(command, own);
  try {
    // The library takes them last first.
    app.parse(std::vector<std::string>(given.words.rbegin(), given.words.rend()));
  } catch (const CLI::CallForHelp&) {
    return {nullptr, app.help()};
  } catch (const CLI::ParseError& error) {
    throw user_error("{}", reworded(command, error))
        .at("command line")
        .advise(fmt::format("sluice {} --help lists the options", command.name));
  }
  if (const std::vector<std::string> extras = app.remaining(); !extras.empty()) {
    const std::string& word = extras.front();
    throw user_error("sluice {} does not take {}", command.name, word).at("command line").advise(advice(command, word));
  }
  if (!given.overrides.empty() && command.overrides == nullptr) {
    throw user_error("sluice {} does not take {}", command.name, given.overrides.front())
        .at("command line")
        .advise(advice(command, given.overrides.front()));
  }
  if (command.overrides != nullptr) *command.overrides = std::move(given.overrides);
  return {&command, ""};
}

std::string welcome(const std::vector<Command>& commands) {
  std::string text = fmt::format("sluice {} pre-trains mixture-of-experts language models.\n\n", version());
  for (const Command& command : commands) text += fmt::format("  sluice {:<8} {}\n", command.name, command.summary);
  text +=
      "\nTo begin with:\n\n"
      "  sluice bench                                    how fast it is here, beside published figures\n"
      "  sluice train examples/pretrain/tiny_text.yaml   a small model learns to write in minutes\n"
      "  sluice doctor                                   what this machine has, and what is in the way\n"
      "\nsluice COMMAND --help says everything about one of them.\n";
  return text;
}

}  // namespace sluice::cli
