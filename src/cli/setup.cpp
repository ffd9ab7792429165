#include "cli/setup.h"

#include <algorithm>
#include <system_error>

#include "base/error.h"
#include "base/log.h"
#include "machine/machine_info.h"

namespace sluice::cli {
namespace {

namespace fs = std::filesystem;

config::Origin option(const std::string& name) {
  return {config::Origin::Kind::command_line, name};
}

// Directories that may hold examples/, the nearest first.
std::vector<fs::path> roots() {
  std::error_code failed;
  std::vector<fs::path> found{fs::current_path(failed)};
  const fs::path program = fs::read_symlink("/proc/self/exe", failed);
  for (fs::path at = program.parent_path(); at.has_relative_path(); at = at.parent_path()) found.push_back(at);
  found.push_back(program.parent_path().parent_path() / "share" / "sluice");
  return found;
}

// Label and file of the published rows, in the order of their labels; none where there are no such files.
std::vector<std::pair<std::string, std::string>> labelled_rows() {
  std::error_code failed;
  std::vector<std::pair<std::string, std::string>> rows;
  for (const fs::path& root : roots()) {
    for (const auto& entry : fs::directory_iterator(root / "examples" / "benchmark" / "configs", failed)) {
      if (entry.path().extension() != ".yaml") continue;
      const std::string file = fs::proximate(entry.path(), failed).string();
      const config::Benchmark row = config::load(file).benchmark;
      if (row.published.gpus) rows.emplace_back(row.row.value_or(""), file);
    }
    if (!rows.empty()) break;
  }
  std::sort(rows.begin(), rows.end());
  return rows;
}

}  // namespace

void add_shortcuts(Command& command, Shortcuts& shortcuts) {
  const std::vector<Option> options = {
      {"--device",
       &shortcuts.device,
       "cpu; ref: plain loops; cuda: the first GPU (default: as configured)",
       "cpu|ref|cuda",
       {"cpu", "ref", "cuda"}},
      {"--threads", &shortcuts.threads, "compute threads of all ranks (default: one per core)", "N"},
      {"--async-comm", &shortcuts.async_comm, "collectives on threads of their own"}};
  command.options.insert(command.options.end(), options.begin(), options.end());
}

Config load_settings(const std::string& file, const std::vector<std::string>& overrides, const Shortcuts& shortcuts) {
  return apply_settings(config::load(file_of_row(file)), overrides, shortcuts);
}

Config apply_settings(Config config, const std::vector<std::string>& overrides, const Shortcuts& shortcuts) {
  if (shortcuts.device) config::set(config, "runtime.device", *shortcuts.device, option("--device"));
  if (shortcuts.threads)
    config::set(config, "runtime.threads", std::to_string(*shortcuts.threads), option("--threads"));
  if (shortcuts.async_comm) config::set(config, "runtime.async_comm", "true", option("--async-comm"));
  config::apply_overrides(config, overrides);
  for (const config::Unavailable& each : config::unavailable(config)) {
    log::warn("{}: {} {}: {}", each.where, each.key, each.value, each.instead);
  }
  for (const config::IgnoredKey& each : config::overruled(config)) {
    log::warn("{}: {}: {}", each.where, each.key, each.reason);
  }
  const config::Origin precision = config.origin("runtime.dtype");
  if (precision.kind == config::Origin::Kind::program) {
    log::info("runtime.dtype is {}, as {} says; --runtime.dtype fp32 computes in fp32",
              precision_name(config.runtime.dtype), precision.text);
  }
  return config;
}

std::optional<Scale> scale_named(const std::string& word) {
  if (word == "full") return std::nullopt;
  return parse_scale(word, "command line");
}

int checked_ranks(int ranks) {
  if (ranks < 1) throw user_error("--ranks {}: at least one is needed", ranks).at("command line");
  return ranks;
}

std::vector<std::string> published_rows() {
  std::vector<std::string> files;
  for (const auto& [label, file] : labelled_rows()) files.push_back(file);
  if (!files.empty()) return files;
  throw user_error("the published rows' files, examples/benchmark/configs/*.yaml, are nowhere around")
      .advise("name a file, sluice bench my.yaml, or call it from the repository");
}

std::string file_of_row(const std::string& name) {
  const auto is_label = [](const std::string& text) {
    return text.size() >= 2 && (text[0] == 'R' || text[0] == 'r') &&
           text.find_first_not_of("0123456789", 1) == std::string::npos;
  };
  std::error_code failed;
  if (!is_label(name) || fs::exists(name, failed)) return name;
  std::string known;
  for (const auto& [label, file] : labelled_rows()) {
    if (label == "R" + name.substr(1)) return file;
    known += (known.empty() ? "" : ", ") + label;
  }
  throw user_error("{} is no published row", name).at("command line").advise("there are: " + known);
}

}  // namespace sluice::cli
