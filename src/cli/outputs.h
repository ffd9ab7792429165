// The one rule for every file and directory that a command writes: nothing that the run reads is written, nothing that
// is there is replaced unless --overwrite was given, and both are known before the run begins. Pipes and devices take
// what they get and are neither.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/output.h"
#include "base/staged_directory.h"
#include "cli/command.h"
#include "cli/inputs.h"

namespace sluice::cli {

// A result that is written at once: over an older file whole or not at all, and only then is anything there.
class OutputFile {
 public:
  OutputFile(OutputPlace place, bool replace);
  // Whether a later write() takes the place of this one; a stream gets one after the other.
  bool replaces() const { return !stream_; }
  // A file that another program has made meanwhile is left as it is: a runtime error.
  void write(const std::string& contents);

 private:
  OutputPlace place_;
  bool replace_;
  std::optional<FileId> own_;  // what was written before
  std::optional<OutputStream> stream_;
};

// A file that grows line by line, each written as it comes. When that fails after the first line the run goes on, and
// hears of it once.
class OutputLog {
 public:
  OutputLog(const OutputPlace& place, bool replace) : stream_(place, replace), kind_(place.kind) {}
  // Removes a file that got no line.
  ~OutputLog();
  OutputLog(const OutputLog&) = delete;
  OutputLog& operator=(const OutputLog&) = delete;
  OutputLog(OutputLog&&) = delete;
  OutputLog& operator=(OutputLog&&) = delete;

  void write_line(const std::string& line);

 private:
  OutputStream stream_;
  OutputPlace::Kind kind_;
  bool begun_ = false;
  bool lost_ = false;
};

// What a run is going to write. Each call throws a user error where the rule forbids it; `name` is what the user calls
// it by, "--json", `place` where.
class Outputs {
 public:
  Outputs(Inputs inputs, bool overwrite) : inputs_(std::move(inputs)), overwrite_(overwrite) {}

  // Checks, and makes nothing yet. With `gone_on_with` a file that is there is not replaced, and no fault.
  OutputPlace file(const std::filesystem::path& path, const std::string& name, const std::string& place,
                   bool gone_on_with = false);
  // A directory of a run, before anything is made in it: none that is read may be given new files.
  void refuse_run_directory(const std::filesystem::path& path) const;
  // Its logs, which nothing else may be.
  void run_directory(const std::filesystem::path& path);
  // The path of a directory for a model. One that is there must be empty, or with --overwrite hold a model's files
  // alone.
  std::filesystem::path model_directory(const std::filesystem::path& path, const std::string& name);

  bool overwrite() const { return overwrite_; }

 private:
  void claim(const std::filesystem::path& path, const std::string& name);
  // `named`: the path as the user wrote it.
  void refuse_inputs(const std::filesystem::path& path, const std::filesystem::path& named,
                     const std::string& name) const;

  Inputs inputs_;
  bool overwrite_;
  std::vector<std::pair<std::filesystem::path, std::string>> claimed_;  // absolute
};

// User error unless so many bytes can be written there; `what` needs them.
void require_space(const std::filesystem::path& path, uint64_t bytes, const std::string& what);

// The option --overwrite.
Option overwrite_option(bool& value);

}  // namespace sluice::cli
