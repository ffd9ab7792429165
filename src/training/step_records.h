// The lines that a training run writes, one of JSON for each logged step and each validation, with the names that
// NeMo AutoModel's training.jsonl and validation.jsonl have. docs/records.md lists them.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "trainer/trainer.h"
#include "training/stragglers.h"

namespace sluice {

// A step that was taken, or a validation after one.
struct TrainRecord {
  int64_t step = 0;           // counted from 1, so as many are done
  int64_t epoch = 0;          // whole passes over the data that were done when the step began
  double learning_rate = 0;   // that the step took
  uint64_t memory_bytes = 0;  // the most that a rank has held so far: the fullest rank's

  // Of a step.
  std::optional<StepResult> result = {};
  std::optional<double> gradient_norm = {};  // before clipping; none where the run does not compute it
  bool left_out = false;                     // it changed no weights (see config::BadSteps)
  int64_t tokens = 0;                        // of the global batch
  double seconds = 0;
  double tokens_per_s = 0;  // of all ranks
  int ranks = 1;
  std::optional<double> mfu = {};       // share of the peak; none where it would be above one (see Yardstick)
  std::optional<double> roofline = {};  // share of the speed that the operations allow at best; likewise
  std::optional<RankTimes> times = {};  // of several ranks, where the host waits for their collectives

  // Of a validation.
  std::optional<double> validation_loss = {};
  int64_t validation_label_tokens = 0;
};

// One line, without its end; `now` is its timestamp.
std::string record_json(const TrainRecord& record, std::chrono::system_clock::time_point now);

// The step of such a line; nothing for a line that is torn, or another program's.
std::optional<int64_t> step_of_record(std::string_view line);

}  // namespace sluice
