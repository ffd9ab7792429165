// The training run: steps, validations, records, an end that all ranks agree on.
#pragma once

#include <functional>
#include <optional>

#include "train/forecast.h"
#include "train/pretrained.h"
#include "train/step_records.h"

namespace sluice {

struct TrainingJob {
  const Dataset* dataset = nullptr;
  const Dataset* validation = nullptr;  // null: there is none
  int64_t validation_samples = 0;       // of one validation
  std::optional<int64_t> validate_every;
  int64_t steps = 0;
  std::string ended_by = {};            // why these are fewer than max_steps; empty where they are not
  const Pretrained* weights = nullptr;  // null: drawn at random
};

// Called on rank 0's thread.
struct TrainingEvents {
  std::function<void(const TrainRecord&)> recorded;  // after each step and each validation
  std::function<bool()> stop;                        // asked after each step and each batch of a validation: end here?
  std::function<void(Trainer&)> trained = {};        // when all is done
  std::function<void(int64_t done, int64_t all)> validating = {};  // before each of a validation's global batches
};

struct TrainingResult {
  int64_t steps = 0;  // done
  int64_t tokens = 0;
  double seconds = 0;  // of the steps
  double first_loss = 0;
  int64_t recent_steps = 0;               // the last ones, twenty at most
  double recent_loss = 0;                 // their mean
  std::optional<double> validation_loss;  // of the last one, if it came to its end
  bool stopped = false;                   // before the last step
};

// How long to train and validate, as the configuration says for this data.
TrainingJob training_job(const Config& config, const RunSpec& spec, const Dataset& dataset, const Dataset* validation);

TrainingResult run_training(const TrainingJob& job, const RunSpec& spec, const SessionOptions& options,
                            const TrainingEvents& events);

}  // namespace sluice
