// A directory that appears under its name when it is complete, or not at all: its files are written beside it, into
// .NAME.sluice-unfinished, which is renamed at the end.
#pragma once

#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/descriptor.h"
#include "base/file.h"

namespace sluice {

class StagedDirectory {
 public:
  // Touches nothing yet.
  StagedDirectory(std::filesystem::path target, bool replace);
  // Removes all that was written, unless it was committed.
  ~StagedDirectory();
  StagedDirectory(const StagedDirectory&) = delete;
  StagedDirectory& operator=(const StagedDirectory&) = delete;
  StagedDirectory(StagedDirectory&&) = delete;
  StagedDirectory& operator=(StagedDirectory&&) = delete;

  // Makes the place to write to, and the directories above it. User error where the target is taken: it is something
  // else than an empty directory (with `replace`: than a directory), or another process is writing it. What a process
  // that was killed has left beside it is removed.
  void begin();
  // Before writing, where begin() was long ago: makes the place anew if somebody has removed it, or what it was in.
  void restore();
  // Where the files of `target` are until it is complete.
  static std::filesystem::path place_of(const std::filesystem::path& target);
  // Where to write; files are to be complete and synchronised.
  const std::filesystem::path& path() const { return path_; }
  const std::filesystem::path& target() const { return target_; }

  // Gives it its name. What has come there since, another run's result for example, is never replaced: then what was
  // written is kept under a name beside it, NAME.2, which the runtime error says.
  void commit();
  // Removes all that was written, unless it was committed. From any thread, also while another one writes, which then
  // fails.
  void abandon() noexcept;
  // Whether all that was written is there, under whatever name.
  bool committed() const;

 private:
  enum class State { idle, open, committed, abandoned };

  void remove() noexcept;
  void make_parents();
  void take_place();
  void check_target() const;
  std::string rename_over();
  std::filesystem::path take_other_name() const;

  std::filesystem::path target_;
  std::filesystem::path path_;
  bool replace_;
  std::optional<FileId> replaced_;           // the directory that may be replaced
  std::vector<std::filesystem::path> made_;  // parents, the outermost first
  Descriptor lock_{-1};
  mutable std::mutex mutex_;  // of what follows
  State state_ = State::idle;
};

}  // namespace sluice
