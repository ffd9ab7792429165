// The trained weights as a directory of the hub, at the end of a run.
#pragma once

#include <string>

#include "base/staged_directory.h"
#include "checkpoint/hub_export.h"
#include "cli/outputs.h"
#include "config/config.h"
#include "trainer/trainer.h"

namespace sluice::cli {

class TrainedExport {
 public:
  // Finds out whether it is possible, the space on the disk included, before anything is trained: a user error
  // otherwise. Makes nothing yet. All outlive the object.
  TrainedExport(const Config& config, const RunSpec& spec, const std::string& directory, Outputs& outputs);

  // Keeps other runs from writing there.
  void begin() { staged_.begin(); }
  // Collective over the ranks, each on its thread. The directory appears when it is complete.
  void write(Trainer& trainer);
  // The same from a checkpoint of the run; on one thread.
  void write(const Checkpoint& checkpoint, const RunSpec& spec);
  // From any thread: removes what is written.
  void abandon() noexcept { staged_.abandon(); }
  bool written() const { return staged_.committed(); }

 private:
  void complete(const ExportCount& count, DType dtype);

  const Config& config_;
  StagedDirectory staged_;
};

}  // namespace sluice::cli
