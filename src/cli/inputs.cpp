#include "cli/inputs.h"

#include <fnmatch.h>
#include <glob.h>

#include <system_error>
#include <utility>

namespace sluice::cli {
namespace {

namespace fs = std::filesystem;

bool names_a_model_part(const fs::path& name) {
  const std::string text = name.string();
  return text == "config.json" || text.ends_with(".safetensors") || text.ends_with(".index.json");
}

bool is_pattern(const fs::path& path) {
  return path.native().find_first_of("*?[") != std::string::npos;
}

std::vector<fs::path> matches_of(const fs::path& pattern) {
  glob_t found{};
  std::vector<fs::path> paths;
  if (::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found) == 0) {
    paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  }
  ::globfree(&found);
  return paths;
}

}  // namespace

Inputs::Inputs() {
  add_file("/proc/self/exe", "this program");
}

Inputs::Inputs(const Config& config, const fs::path& file) : Inputs() {
  add_file(file, "the configuration");
  if (const auto& source = config.model.config.pretrained_model_name_or_path) {
    add_model(*source, "the model's directory");
  }
  if (config.dataset.path) add_data(*config.dataset.path, "dataset.path");
  if (config.validation_dataset.path) add_data(*config.validation_dataset.path, "validation_dataset.path");
}

void Inputs::add_file(const fs::path& file, const std::string& what) {
  if (const auto id = file_id(file)) files_.emplace(*id, what);
}

void Inputs::add_model(const fs::path& directory, const std::string& what) {
  std::error_code failed;
  if (!fs::is_directory(directory, failed)) return add_file(directory, what);
  if (const auto id = file_id(directory)) models_.emplace(*id, what);
  for (fs::directory_iterator entry(directory, failed), end; !failed && entry != end; entry.increment(failed)) {
    if (!entry->is_directory(failed)) add_file(entry->path(), what);
  }
}

void Inputs::add_data(const fs::path& path, const std::string& what) {
  std::error_code failed;
  if (fs::is_directory(path, failed)) return add_tree(path, what);
  if (fs::exists(path, failed) || !is_pattern(path)) return add_file(path, what);
  patterns_.emplace_back(fs::absolute(path).lexically_normal().string(), what);
  for (const fs::path& match : matches_of(path)) {
    fs::is_directory(match, failed) ? add_tree(match, what) : add_file(match, what);
  }
}

// Links to directories are followed, as data is read; each directory is seen once.
void Inputs::add_tree(const fs::path& directory, const std::string& what) {
  const auto id = file_id(directory);
  if (!id || !directories_.emplace(*id, what).second) return;
  std::error_code failed;
  for (fs::directory_iterator entry(directory, failed), end; !failed && entry != end; entry.increment(failed)) {
    std::error_code ignored;
    entry->is_directory(ignored) ? add_tree(entry->path(), what) : add_file(entry->path(), what);
  }
}

std::string Inputs::reader_of(const fs::path& path) const {
  if (const auto id = file_id(path)) {
    for (const auto* const known : {&files_, &models_, &directories_}) {
      if (const auto found = known->find(*id); found != known->end()) return found->second;
    }
  }
  // As it is written, which is how a pattern may name it, and as it is without links.
  std::error_code failed;
  const fs::path written = fs::absolute(path).lexically_normal(), real = fs::weakly_canonical(path, failed);
  if (const auto id = file_id(real.parent_path()); id && names_a_model_part(real.filename())) {
    if (const auto found = models_.find(*id); found != models_.end()) return found->second;
  }
  for (const fs::path& whole : {real, written}) {
    for (fs::path at = whole; at.has_relative_path(); at = at.parent_path()) {
      const auto above = whole == real ? file_id(at.parent_path()) : std::nullopt;
      const auto found = above ? directories_.find(*above) : directories_.end();
      if (found != directories_.end()) return found->second;
      for (const auto& [pattern, what] : patterns_) {
        if (::fnmatch(pattern.c_str(), at.c_str(), FNM_PATHNAME) == 0) return what;
      }
    }
  }
  return {};
}

}  // namespace sluice::cli
