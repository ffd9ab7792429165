// Evaluation: the loss of a model on data, without training.
#pragma once

#include <optional>

#include "train/pretrained.h"
#include "train/session.h"

namespace sluice {

struct Evaluation {
  int64_t batches = 0;
  int64_t tokens = 0;
  double loss = 0;  // nats per label token
  double seconds = 0;
};

// Global batches of an evaluation: all that the data has, but one of data without an end, and at most `limit`.
int64_t evaluation_batches(const RunSpec& spec, const Dataset& dataset, std::optional<int64_t> limit = {});

// `weights` may be null: drawn at random.
Evaluation run_evaluation(const RunSpec& spec, const SessionOptions& options, const Dataset& dataset, int64_t batches,
                          const Pretrained* weights);

}  // namespace sluice
