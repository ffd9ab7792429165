// Saves a run while it trains: every rank writes its part on a thread of its own (checkpoint/rank_writer.h), and when
// all have ended the first rank puts the checkpoint together and gives it its name. One save is under way at a time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/staged_directory.h"
#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/manifest.h"
#include "checkpoint/rank_writer.h"
#include "trainer/trainer.h"
#include "training/save_forecast.h"

namespace sluice {

// What a save took.
struct SaveReport {
  int64_t step = 0;
  std::filesystem::path path;
  uint64_t bytes = 0;
  double seconds = 0;                           // from its begin until it had its name
  double blocked = 0;                           // that the first rank's training waited for it
  std::optional<double> forecast_blocked = {};  // what was expected by the speeds of the save before
};

struct SaveOptions {
  const CheckpointFolder* folder = nullptr;  // of the run; null in processes without rank 0
  std::filesystem::path directory = {};      // the run's, where there is no folder
  bool in_background = true;                 // training goes on meanwhile
  bool go_on = true;                         // after a save that failed; else that ends the run
  std::optional<int64_t> resumed = {};       // the step of the checkpoint that the run goes on from
  Retention retention;
  Manifest manifest;  // of the run: all but its state and the files
  // On the first rank: what else belongs in the checkpoint, written before its manifest, and what is made of the
  // checkpoint itself, before it gets its name.
  std::function<void(const std::filesystem::path& staged)> beside = {};
  std::function<void(const std::filesystem::path& staged, int64_t step)> complete = {};
  std::function<uint64_t(int64_t step)> complete_bytes = {};  // that it writes
  std::function<void(const SaveReport&)> saved = {};

  const std::filesystem::path& path() const { return folder != nullptr ? folder->path() : directory; }
  std::filesystem::path of_step(int64_t step) const { return path() / checkpoint_name(step); }
};

// One rank's. All functions are collective unless they say otherwise.
class Saver {
 public:
  // Tries how fast the run's directory can be written.
  Saver(Trainer& trainer, SaveOptions options);
  ~Saver();
  Saver(const Saver&) = delete;
  Saver& operator=(const Saver&) = delete;
  Saver(Saver&&) = delete;
  Saver& operator=(Saver&&) = delete;

  // Begins a save, after the end of the one before. `seconds_left`: until weights will change, as far as is known.
  // `final`: the run ends with it; require_saved() says whether it was.
  void begin(const RunState& state, double seconds_left, bool final);
  // Before weights change. Not collective.
  void release();
  // Where this rank is with it, 0 or 1 each, to be summed over the ranks. Not collective.
  struct Votes {
    int64_t ended = 0;
    int64_t failed = 0;
  };
  Votes votes() const;
  // With the sums: goes on when all ranks have ended what they do now, writing or putting the checkpoint together;
  // gives up a save that failed on any.
  void settle(const Votes& sums);
  // Waits for the end of the save that is under way.
  void finish();
  // Whether no final save has failed, the same on all ranks. Not collective.
  bool saved() const { return !unsaved_; }
  // Ends the run where a final save has failed.
  void require_saved();
  // The step of the newest complete save of this object, the same on all ranks.
  std::optional<int64_t> last_step() const { return last_step_; }

 private:
  struct Save;
  uint64_t all_bytes();
  void open(const RunState& state);
  void report();
  void give_up(std::string reason);
  void put_together();

  Trainer& trainer_;
  SaveOptions options_;
  bool first_;
  std::optional<uint64_t> all_bytes_;
  std::optional<SaveSpeed> speed_;  // on the first rank: as tried, then of the last save
  std::optional<int64_t> last_step_;
  std::optional<std::string> unsaved_;  // why a final save failed; empty where another rank knows
  std::unique_ptr<Save> save_;
};

}  // namespace sluice
