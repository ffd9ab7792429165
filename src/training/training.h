// The training run: steps, validations, saves, records, an end that all ranks agree on.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "checkpoint/checkpoint.h"
#include "trainer/pretrained.h"
#include "training/saver.h"
#include "training/step_records.h"
#include "twin/forecast.h"

namespace sluice {

// When a run saves itself; the last step is always saved.
struct SaveSchedule {
  std::optional<int64_t> every;  // steps
  std::optional<int64_t> epoch;  // steps of an epoch at whose end it saves too
  bool validate = false;         // before each save

  bool due(int64_t step) const { return (every && step % *every == 0) || (epoch && step % *epoch == 0); }
};

struct TrainingJob {
  const Dataset* dataset = nullptr;
  const Dataset* validation = nullptr;  // null: there is none
  int64_t validation_samples = 0;       // of one validation
  std::optional<int64_t> validate_every;
  int64_t steps = 0;
  std::string ended_by = {};            // why these are fewer than max_steps; empty where they are not
  const Pretrained* weights = nullptr;  // null: drawn at random
  const Checkpoint* resumed = nullptr;  // where the run goes on from; null: it begins
  const SaveOptions* saving = nullptr;  // null: nothing is saved
  SaveSchedule schedule;
  config::BadSteps bad_steps;
  std::optional<double> most_seconds;  // then the run saves and ends
};

struct TrainingResult {
  int64_t steps = 0;      // done, those of earlier parts of a resumed run too
  int64_t own_steps = 0;  // of this process
  int64_t tokens = 0;     // of its steps
  double seconds = 0;     // of its steps
  double first_loss = 0;
  int64_t recent_steps = 0;               // the last ones, twenty at most
  double recent_loss = 0;                 // their mean
  std::optional<double> validation_loss;  // of the last one, if it came to its end
  bool stopped = false;                   // before the last step
  bool saved = true;                      // false: the last save has failed
  bool out_of_time = false;               // because of TrainingJob::most_seconds
};

// Called on rank 0's thread, but where it says so.
struct TrainingEvents {
  std::function<void(const RunState&)> begun = {};   // before the first step: where the run stands
  std::function<void(const TrainRecord&)> recorded;  // after each step and each validation
  // Asked after each step and each batch of a validation, on the thread of each process's first rank: end here?
  std::function<bool()> stop;
  std::function<void(Trainer&, const TrainingResult&)> trained = {};  // when all is done; on every rank
  std::function<void(int64_t done, int64_t all)> validating = {};     // before each of a validation's global batches
  // The run has gone back to a checkpoint, at this step.
  std::function<void(int64_t step)> rolled_back = {};
};

// How long to train, validate and save, as the configuration says for this data.
TrainingJob training_job(const Config& config, const RunSpec& spec, const Dataset& dataset, const Dataset* validation);

TrainingResult run_training(const TrainingJob& job, const RunSpec& spec, const LaunchOptions& options,
                            const TrainingEvents& events);

}  // namespace sluice
