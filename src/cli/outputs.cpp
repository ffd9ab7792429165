#include "cli/outputs.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/hub_export.h"
#include "cli/run_directory.h"

namespace sluice::cli {
namespace {

namespace fs = std::filesystem;

using Kind = OutputPlace::Kind;

Error cannot_write(const fs::path& path, const std::string& reason) {
  return user_error("cannot write {}: {}", path.string(), reason);
}

// Where it would be made: the nearest directory above that is there.
fs::path existing_parent(const fs::path& path) {
  std::error_code failed;
  fs::path at = fs::absolute(path).parent_path();
  while (at.has_relative_path() && !fs::exists(at, failed)) at = at.parent_path();
  return at;
}

void require_writable(const fs::path& path, const fs::path& directory) {
  std::error_code failed;
  if (!fs::is_directory(directory, failed)) {
    throw cannot_write(path, fmt::format("there is no directory {}", directory.string()));
  }
  if (::access(directory.c_str(), W_OK | X_OK) != 0) {
    throw cannot_write(path, fmt::format("{}: {}", directory.string(), std::generic_category().message(errno)));
  }
}

}  // namespace

OutputFile::OutputFile(OutputPlace place, bool replace) : place_(std::move(place)), replace_(replace) {
  if (place_.kind == Kind::stream) stream_.emplace(place_, replace);
}

void OutputFile::write(const std::string& contents) {
  if (stream_) {
    std::fflush(stdout);  // which the stream may be
    return stream_->write(contents);
  }
  if (const auto there = file_id(place_.path); there && there != own_ && !replace_) {
    throw runtime_failure("cannot write {}: another program has made it meanwhile", place_.path.string());
  }
  write_file_atomic(place_.path, contents);
  own_ = file_id(place_.path);
}

OutputLog::~OutputLog() {
  if (!begun_ && kind_ != Kind::stream) ::unlink(stream_.path().c_str());
}

void OutputLog::write_line(const std::string& line) {
  if (lost_) return;
  if (kind_ == Kind::stream) std::fflush(stdout);
  try {
    stream_.write(line + "\n");
  } catch (const Error& error) {
    lost_ = true;
    log::warn("{}; the run goes on without its log", error.what());
  }
  begun_ = true;
}

void Outputs::claim(const fs::path& path, const std::string& name) {
  std::error_code failed;
  const fs::path whole = fs::weakly_canonical(fs::absolute(path), failed);
  const auto inside = [](const fs::path& inner, const fs::path& outer) {
    const auto [at, rest] = std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end());
    return at == outer.end();
  };
  for (const auto& [other, by] : claimed_) {
    const bool same_file = file_id(whole) && file_id(whole) == file_id(other);
    if (same_file || inside(whole, other) || inside(other, whole)) {
      throw cannot_write(path, fmt::format("{} and {} are in each other's way", by, name))
          .advise(fmt::format("give {} another place", name));
    }
  }
  claimed_.emplace_back(whole, name);
}

void Outputs::refuse_inputs(const fs::path& path, const fs::path& named, const std::string& name) const {
  const std::string reader = inputs_.reader_of(path);
  if (reader.empty()) return;
  throw cannot_write(named, fmt::format("it is read by this run ({})", reader))
      .advise(fmt::format("give {} another place: what is read is never replaced", name));
}

void Outputs::refuse_run_directory(const fs::path& path) const {
  for (const std::string_view log : {kTrainingLog, kValidationLog}) {
    refuse_inputs(path / log, path, "checkpoint.checkpoint_dir");
  }
}

void Outputs::run_directory(const fs::path& path) {
  for (const std::string_view log : {kTrainingLog, kValidationLog}) claim(path / log, "the run's own log");
}

OutputPlace Outputs::file(const fs::path& path, const std::string& name, const std::string& place, bool gone_on_with) {
  if (path.empty()) throw user_error("{} is empty", name).at(place).advise("name a file");
  OutputPlace there = output_place(path);
  if (there.kind == Kind::stream) return there;
  if (there.kind == Kind::directory || !path.has_filename()) throw cannot_write(path, "it is a directory");
  if (there.kind == Kind::other) throw cannot_write(path, fmt::format("it is {}", there.what));
  require_writable(path, there.path.has_parent_path() ? there.path.parent_path() : fs::path("."));
  refuse_inputs(there.path, path, name);
  if (there.kind == Kind::file && !overwrite_ && !gone_on_with) {
    throw cannot_write(path, "it is there already")
        .at(place)
        .advise(fmt::format("give {} another file, or add --overwrite", name));
  }
  // Permissions do not tell everything: a file system may be of a kind that takes no new files.
  {
    const AtomicFile probe(there.path);
  }
  claim(there.path, name);
  return there;
}

fs::path Outputs::model_directory(const fs::path& path, const std::string& name) {
  if (path.empty()) throw user_error("{} is empty", name).at("command line").advise("name a directory");
  const fs::path bare = path.has_filename() ? path : path.parent_path();
  const OutputPlace there = output_place(bare);
  if (there.kind != Kind::nothing && there.kind != Kind::directory) throw cannot_write(path, "it is not a directory");
  refuse_inputs(there.path, path, name);
  if (there.kind == Kind::directory && is_mount_point(there.path)) {
    throw cannot_write(path, "a disk is mounted there, and a complete directory is put into its place by renaming it")
        .advise("name a new directory in it");
  }
  require_writable(path, existing_parent(there.path));
  if (there.kind == Kind::directory) {
    std::error_code failed;
    for (const fs::directory_entry& entry : fs::directory_iterator(there.path, failed)) {
      const std::string file = entry.path().filename().string();
      refuse_inputs(entry.path(), entry.path(), name);
      if (overwrite_ && is_hub_file(file) && !entry.is_directory(failed)) continue;
      Error error = user_error("{} is not empty: {} is there", path.string(), printable_line(file));
      if (overwrite_) throw std::move(error).advise("only a directory that holds a model's files alone is replaced");
      throw std::move(error).advise(
          "name a new directory, empty that one, or replace the model in it by adding --overwrite");
    }
    if (failed) throw cannot_write(path, failed.message());
  }
  claim(there.path, name);
  return there.path;
}

void require_space(const fs::path& path, uint64_t bytes, const std::string& what) {
  const std::optional<uint64_t> free = free_bytes(path);
  if (!free || *free >= bytes) return;
  throw user_error("{} needs {} and {} are free where {} would be", what, format_bytes(bytes), format_bytes(*free),
                   path.string())
      .advise("make room there, or name a directory on another disk");
}

Option overwrite_option(bool& value) {
  return {"--overwrite", &value, "replace what is there already (never what this run reads)"};
}

}  // namespace sluice::cli
