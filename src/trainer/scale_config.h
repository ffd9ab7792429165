// How a configuration written for many GPUs is fitted to this machine, by rule:
//   degrees  with N ranks: pp = the largest divisor of N up to the row's; ep = the largest divisor of N / pp up to the
//            row's that divides the experts; tp = cp = 1; the rest is dp. Virtual stages stay where layers allow.
//   sizes    of the model and the sequence: see model/scale.h
//   batch    the row's micro-batch; GBS = 8 micro-batches over all data-parallel ranks, at least one on each
//   steps    2 to warm up, 5 timed; MFU against the peak measured here
// What was given on the command line is never touched.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config/load.h"
#include "model/scale.h"
#include "trainer/run_spec.h"

namespace sluice {

struct ScaledConfig {
  Config config;
  std::vector<config::Change> changes;  // in the order they were made
};

// Fits the degrees to `ranks`, and with a scale the rest too.
ScaledConfig scale_config(const Config& row, std::optional<Scale> scale, int ranks);

// The row's own layout: ranks, degrees and batch stay, with a scale the model and the sequence shrink. Of a step that
// is quick one warms up and two are timed, of another one alone.
ScaledConfig scale_within_layout(const Config& row, std::optional<Scale> scale);

// Whether a step is so little work that it takes a second or two on a laptop.
bool has_quick_step(const RunSpec& spec);

// The ranks a configuration is written for: those of its published row, else the fewest its degrees allow.
int ranks_of(const Config& config);

}  // namespace sluice
