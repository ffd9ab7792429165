// Where a run keeps its checkpoints and logs, and what it goes on from.
//   runs/NAME, or runs/NAME-2 and so on where one is: of a file NAME.yaml that names no other place. A configuration
//     that comes through a pipe has no name of its own: it is "stdin", or "unnamed" from another descriptor, <(...)
//   checkpoint.checkpoint_dir: where it is given, or NeMo AutoModel's own
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpoint_folder.h"
#include "config/config.h"

namespace sluice::cli {

inline constexpr std::string_view kTrainingLog = "training.jsonl", kValidationLog = "validation.jsonl";

class RunDirectory {
 public:
  // Where it will be, as far as is known before it is looked for; a run with a number behind its name lies beside it.
  static std::filesystem::path expected(const Config& config, const std::string& file,
                                        const std::optional<std::string>& resume);
  // `resume`: the value of --resume, empty where it has none; nothing where it is not given. `run`: describe_run().
  // Makes the directory and takes its lock. User error for a checkpoint that is not of this run, for a named place
  // without one or that cannot be read, and for what would be in the way of a save; a run is never begun anew where it
  // was to go on. Logs of an earlier run that are there are set aside, training.jsonl.1, which is said.
  RunDirectory(const Config& config, const std::string& file, const std::optional<std::string>& resume,
               const Manifest& run);
  // Removes the directory where it was made for this run and nothing came to be in it.
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;
  RunDirectory(RunDirectory&&) = delete;
  RunDirectory& operator=(RunDirectory&&) = delete;

  const CheckpointFolder& folder() const { return *folder_; }
  const std::filesystem::path& path() const { return folder_->path(); }
  // Null where the run begins.
  const Checkpoint* checkpoint() const { return checkpoint_.get(); }
  // Whether the logs that are there are this run's own: it goes on from a checkpoint beside them, or it was ended
  // before its first one and is started again.
  bool goes_on() const { return goes_on_; }
  // Whether logging.jsonl, too, names what the run wrote before.
  bool has_own_log() const { return has_own_log_; }

 private:
  void choose(const std::optional<std::string>& resume);
  bool begun_by_this_run(const std::filesystem::path& folder) const;
  void choose_named(const std::filesystem::path& named);
  void choose_restored(const std::string& from);
  void choose_given(bool may_resume);
  void choose_newest();
  std::vector<std::filesystem::path> usual_runs() const;
  void begin_anew();
  bool of_this_run(const std::filesystem::path& checkpoint, std::string& why_not) const;
  void go_on_from(const std::filesystem::path& checkpoint);
  void check_later(const std::filesystem::path& folder) const;
  std::filesystem::path numbered(int number) const;
  bool saved_here() const;
  bool has_own_logs(bool may_resume) const;
  bool same_log() const;
  void set_logs_aside() const;

  const Config& config_;
  const Manifest& run_;
  std::filesystem::path usual_;  // runs/NAME
  bool made_ = false;            // the directory, by this run
  bool goes_on_ = false;
  bool has_own_log_ = false;
  std::unique_ptr<CheckpointFolder> folder_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

}  // namespace sluice::cli
