// The log of a run: a file of lines that each have a step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "base/descriptor.h"

namespace sluice::cli {

// One that is there is gone on with: what it has of steps behind `step`, which are made again, is taken out first, and
// so is a last line that was cut short.
class RunLog {
 public:
  RunLog(std::filesystem::path path, int64_t step);

  // Where that fails the run goes on without this line, no part of which is left; of several that fail in a row the
  // first is said.
  void write_line(const std::string& line);
  // Returns when what was written is on the disk, as far as that can be done.
  void sync() const;
  // Takes out what it has of later steps.
  void go_back(int64_t step);

 private:
  void open();

  std::filesystem::path path_;
  std::optional<Descriptor> file_;
  bool lost_ = false;  // the line before
};

}  // namespace sluice::cli
