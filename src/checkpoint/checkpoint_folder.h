// The checkpoints of a run, beside each other in its directory:
//   step-100/ step-200/   complete ones (checkpoint.h); the name is the step
//   LATEST -> step-200    the newest
//   LOWEST_VAL -> ...     that with the lowest validation loss, where there is one
//   .step-300.sluice-unfinished/   one that is being written, or was when a process was killed
// Only the process that has the folder's lock changes anything in it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "base/descriptor.h"

namespace sluice {

inline constexpr std::string_view kLatest = "LATEST", kLowestLoss = "LOWEST_VAL";

std::string checkpoint_name(int64_t step);
// The step in such a name; none for other names.
std::optional<int64_t> step_of_name(std::string_view name);

struct FoundCheckpoint {
  int64_t step = 0;
  std::filesystem::path path;
};
// Those in a folder, by rising step; none where there is no folder.
std::vector<FoundCheckpoint> find_checkpoints(const std::filesystem::path& folder);

// Whether a run saves there, or did.
bool is_checkpoint_folder(const std::filesystem::path& folder);

// Which of them stay.
struct Retention {
  std::optional<int64_t> recent;  // the newest so many; none: all
  std::optional<int64_t> every;   // steps: multiples stay as well
};

class CheckpointFolder {
 public:
  // Makes the folder where there is none and takes its lock, which ends with the process or the object. User error
  // where another process has it, or the folder cannot be written. Removes what a killed process has left unfinished.
  explicit CheckpointFolder(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path of_step(int64_t step) const { return path_ / checkpoint_name(step); }
  // Makes LATEST, and with `lowest` LOWEST_VAL, lead to a checkpoint of this folder.
  void link(int64_t step, bool lowest) const;
  // Removes those that need not stay, but never one that a link leads to.
  void clean(const Retention& retention) const;

 private:
  void sweep() const;

  std::filesystem::path path_;
  Descriptor lock_;
};

}  // namespace sluice
