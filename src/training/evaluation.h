// Evaluation: the loss of a model on data, without training.
#pragma once

#include <optional>

#include "trainer/pretrained.h"
#include "training/session.h"

namespace sluice {

struct Evaluation {
  Evaluated evaluated;
  int64_t samples = 0;
  double seconds = 0;
};

// Samples of an evaluation: all that the data has, but one global batch of data without an end, and at most
// `batch_limit` global batches.
int64_t evaluation_samples(const RunSpec& spec, const Dataset& dataset, std::optional<int64_t> batch_limit = {});

// `weights` may be null: drawn at random. `progress` is told of global batches, on the first rank's thread.
Evaluation run_evaluation(const RunSpec& spec, const LaunchOptions& options, const Dataset& dataset, int64_t samples,
                          const Pretrained* weights, const std::function<void(int64_t done, int64_t all)>& progress);

}  // namespace sluice
