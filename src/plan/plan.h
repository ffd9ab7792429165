// Plan: does a run fit a machine, and how fast would it be. The trainer's own code runs on meta, one rank of each
// pipeline stage together; the others do the same work.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "plan/memory_peak.h"
#include "plan/profile.h"
#include "training/session.h"

namespace sluice {

// Where a step's time goes; the parts add up to the step.
struct StepTime {
  double projections = 0;
  double attention = 0;
  double experts = 0;  // products of the experts
  double head = 0;
  double rest = 0;                                           // norms, activations, moving rows
  std::vector<std::pair<std::string, double>> exposed = {};  // communication nobody computed under, by axis
  double bubble = 0;                                         // waiting for other stages
  double optimizer = 0;

  double compute() const { return projections + attention + experts + head + rest; }
  double communication() const;
  double total() const { return compute() + communication() + bubble + optimizer; }
};

struct StagePlan {
  int stage = 0;
  RankPlan rank;
  size_t communicators = 0;  // bytes
  StepTime time;
  MemoryPeak peak;  // only in a detailed plan

  // What a rank of the stage needs at most.
  size_t bytes() const { return rank.ledger.peak() + communicators; }
};

struct Plan {
  RunSpec spec;
  Profile profile;
  std::vector<StagePlan> stages;
  StepTime time;  // mean of the stages
  double step_seconds = 0;
  double tokens_per_s_per_rank = 0;
  double model_tflops_per_rank = 0;
  double mfu = 0;

  // The stage whose ranks need the most memory.
  const StagePlan& fullest() const;
  size_t peak_bytes() const { return fullest().bytes(); }
  bool fits() const { return peak_bytes() <= profile.usable; }
};

enum class Detail : uint8_t { sizes_and_times, memory_peaks };
Plan make_plan(const RunSpec& spec, const Profile& profile, Detail detail = Detail::sizes_and_times);

// Counts where the gate sends the tokens of a step, with all threads of the pool. This plan and those of other layouts
// find it counted then; else each counts as it goes.
void count_gate(const RunSpec& spec, Pool& pool, const std::function<void(int64_t done, int64_t all)>& progress);

// The rank of each stage whose experts get the most rows, in one column of the mesh.
std::vector<int> representatives(const RunSpec& spec);

}  // namespace sluice
