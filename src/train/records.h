// Results as JSON: the object `bench --json` writes, and the lines of a training run's log.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/benchmark.h"

namespace sluice {

// {"machine": {...}, "commit": "...", "rows": [...]}
std::string benchmark_json(const MachineInfo& machine, std::string_view commit, const std::vector<BenchmarkRow>& rows);

// One logged step of a training run; a validation has only its step and loss.
struct TrainRecord {
  int64_t step = 0;  // counted from 1
  std::optional<StepResult> result;
  double seconds = 0;
  double tokens_per_s = 0;
  std::optional<double> validation_loss;
};
// One line, without its end.
std::string record_json(const TrainRecord& record);

}  // namespace sluice
