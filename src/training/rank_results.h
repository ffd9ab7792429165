// What each rank of a benchmark has found out, brought together from all processes.
#pragma once

#include <string>
#include <vector>

#include "comm/processes/courier.h"
#include "parallel/runtime.h"

namespace sluice {

struct RankResult {
  double load_factor = 1;
  uint64_t memory = 0;   // that it held at most
  uint64_t planned = 0;  // that it was planned to hold
  std::vector<ArenaGrowth> grown = {};
};

struct ProcessResult {
  int threads = 1;                // of its pool
  std::vector<RankResult> ranks;  // its own, in their order
};

// One text, and back.
std::string to_text(const ProcessResult& result);
ProcessResult process_result_of(const std::string& text);

// Of all processes, in their order. All call it; null: there is this one only.
std::vector<ProcessResult> gather(const ProcessResult& mine, Courier* courier);

}  // namespace sluice
