// The trained weights as a directory of the hub, at the end of a run.
#pragma once

#include <string>

#include "base/staged_directory.h"
#include "cli/outputs.h"
#include "config/config.h"
#include "train/trainer.h"

namespace sluice::cli {

class TrainedExport {
 public:
  // Finds out whether it is possible, the space on the disk included, before anything is trained: a user error
  // otherwise. Makes nothing yet. All outlive the object.
  TrainedExport(const Config& config, const RunSpec& spec, const std::string& directory, Outputs& outputs);

  // Keeps other runs from writing there.
  void begin() { staged_.begin(); }
  // On the only rank. The directory appears when it is complete.
  void write(Trainer& trainer);
  // From any thread: removes what is written.
  void abandon() noexcept { staged_.abandon(); }
  bool written() const { return staged_.committed(); }

 private:
  const Config& config_;
  StagedDirectory staged_;
};

}  // namespace sluice::cli
