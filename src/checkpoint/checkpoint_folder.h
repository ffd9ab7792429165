// The checkpoints of a run, beside each other in its directory:
//   step-100/ step-200/   complete ones (checkpoint.h); the name is the step
//   LATEST -> step-200    the newest
//   LOWEST_VAL -> ...     that with the lowest validation loss, where there is one
//   .step-300.sluice-unfinished/   one that is being written, or was when a process was killed
// Only the process that has the folder's lock changes anything in it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/descriptor.h"
#include "base/file.h"

namespace sluice {

inline constexpr std::string_view kLatest = "LATEST", kLowestLoss = "LOWEST_VAL";

std::string checkpoint_name(int64_t step);
// The step in such a name; none for other names.
std::optional<int64_t> step_of_name(std::string_view name);

struct FoundCheckpoint {
  int64_t step = 0;
  std::filesystem::path path;
};
// What is in a directory; nothing where there is none. User error where it cannot be read.
std::vector<std::filesystem::path> entries_of(const std::filesystem::path& folder);
// The checkpoints in a folder, by rising step; none where there is no folder. User error where it cannot be read.
std::vector<FoundCheckpoint> find_checkpoints(const std::filesystem::path& folder);

// Whether a run saves there, or did.
bool is_checkpoint_folder(const std::filesystem::path& folder);

// Makes a run's directory and those above it. User error that names what is there in place of one of them.
void make_run_directory(const std::filesystem::path& folder);
// PATH.1, PATH.2 and so on: the first that nothing has.
std::filesystem::path unused_name(const std::filesystem::path& path);

// Which of them stay.
struct Retention {
  std::optional<int64_t> recent;  // the newest so many; none: all
  std::optional<int64_t> every;   // steps: multiples stay as well
};

// Bytes that can still be written at a path; none where that is not known.
using FreeSpace = std::function<std::optional<uint64_t>(const std::filesystem::path&)>;

class CheckpointFolder {
 public:
  // Makes the folder where there is none and takes its lock, which ends with the process or the object. User error
  // where another process has it, or the folder cannot be written. Removes what a killed process has left unfinished.
  explicit CheckpointFolder(std::filesystem::path path, FreeSpace free = free_bytes);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path of_step(int64_t step) const { return path_ / checkpoint_name(step); }
  // User error for what would be in the way of a save after `step`: a file or a link under the name of a later
  // checkpoint, or anything but a link under the name of one of the links.
  void require_free_names(int64_t step) const;
  // Where fewer bytes are free than a checkpoint needs: removes, from the oldest on, those that will not stay beside
  // it, until there is room. At least one stays, and all that a link leads to. Runtime error where there is no room
  // then.
  void make_room(int64_t step, uint64_t bytes, const Retention& retention) const;
  // Makes LATEST, and with `lowest` LOWEST_VAL, lead to a checkpoint of this folder.
  void link(int64_t step, bool lowest) const;
  // The same, where that is not so yet, for a run that goes on from one of this folder: whoever saved it may have been
  // killed before.
  void link_resumed(const FoundCheckpoint& checkpoint, bool lowest) const;
  // Removes those that need not stay, but never one that a link leads to.
  void clean(const Retention& retention) const;

 private:
  void sweep() const;
  // Those that need not stay where the newest `recent` do, by rising step.
  std::vector<FoundCheckpoint> spare(int64_t recent, const Retention& retention) const;
  void remove(const FoundCheckpoint& checkpoint) const;

  std::filesystem::path path_;
  FreeSpace free_;
  Descriptor lock_;
};

}  // namespace sluice
