// Results as JSON: a benchmark's report, which `bench --json` writes and `bench --from` prints again, and what an
// evaluation found. The lines of a training run are in step_records.h.
#pragma once

#include <string>
#include <string_view>

#include "training/benchmark.h"
#include "training/evaluation.h"

namespace sluice {

// {"version": "...", "commit": "...", "machine": {...}, "rows": [...]}; docs/benchmark.md lists the keys.
std::string report_json(const BenchmarkReport& report);

// The report that report_json wrote, without the operations of a step. User error that names `file` for any other text.
BenchmarkReport read_report(std::string_view json, const std::string& file);

// What an evaluation found, with all digits; `description` is of the command.
struct EvaluationRecord {
  std::string version;
  std::string commit;
  std::string config;   // the file
  std::string dataset;  // the section: "validation_dataset"
  bool bytes = false;   // whether its tokens are
  std::string weights;  // the directory; empty: drawn at random
  std::string model;
  int64_t parameters = 0;
  std::string device;
  std::string dtype;
  int ranks = 1;
  int64_t global_batch = 1;
  int64_t seq_len = 1;
  Evaluation evaluation;
};
std::string evaluation_json(const EvaluationRecord& record);

}  // namespace sluice
