#include "cli/setup.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

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

void prepare_hub_directory(const fs::path& directory) {
  std::error_code failure;
  fs::create_directories(directory, failure);
  if (failure) throw user_error("cannot create directory {}: {}", directory.string(), failure.message());
  if (const fs::directory_iterator first(directory, failure); !failure && first != fs::directory_iterator()) {
    throw user_error("{} is not empty: {} is there", directory.string(), first->path().filename().string())
        .advise("name a new directory, or empty that one: files of the same name would be replaced");
  }
  if (::access(directory.c_str(), W_OK | X_OK) != 0) {
    throw user_error("cannot write to {}: {}", directory.string(), std::generic_category().message(errno));
  }
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

OutputFile::OutputFile(fs::path path, const fs::path& input) : path_(std::move(path)) {
  std::error_code failed;
  const fs::file_status there = fs::status(path_, failed);
  const fs::path directory = path_.has_parent_path() ? path_.parent_path() : fs::path(".");
  std::string reason;
  if (path_.empty() || fs::is_directory(there)) {
    reason = "it is a directory";
  } else if (fs::exists(there) && !fs::is_regular_file(there)) {
    reason = "it is not a regular file";
  } else if (!fs::is_directory(directory, failed)) {
    reason = fmt::format("there is no directory {}", directory.string());
  } else if (::access(directory.c_str(), W_OK) != 0) {
    reason = fmt::format("{}: {}", directory.string(), std::generic_category().message(errno));
  } else if (fs::equivalent(path_, input, failed) || (fs::exists(there) && fs::equivalent(directory, input, failed))) {
    reason = "it is read from";
  }
  if (!reason.empty()) throw user_error("cannot write {}: {}", path_.string(), reason);
}

void OutputFile::write(const std::string& contents) const {
  write_file_atomic(path_, contents);
}

}  // namespace sluice::cli
