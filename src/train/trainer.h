// Trainer: one rank's whole training program - parameters, runtime, optimizer, data. The same code runs on real memory
// and on meta, where it is the planner.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/hub_import.h"
#include "optim/adamw.h"
#include "parallel/runtime.h"
#include "train/batches.h"
#include "train/expert_load.h"
#include "train/run_spec.h"

namespace sluice {

struct StepResult {
  double loss = 0;  // nats per label token of the global batch
  // Of the extra layer, unweighted and not part of the other: nats per label of its own, which are fewer. Its gradient
  // is that of weight x sum of its losses / label_tokens, as DeepSeek-V3's report defines it (equations 24 and 25: the
  // sum is divided by the length of the sequence, not by the tokens that have one after the next).
  std::optional<double> mtp_loss = {};
  double gradient_norm = 0;  // before clipping; 0 when RunSpec::gradient_norm is off
  double learning_rate = 0;
  int64_t label_tokens = 0;
  int64_t mtp_label_tokens = 0;
  std::vector<LayerLoad> expert_load = {};  // of the global batch, by layer with experts, where it was counted
};

// The loss of a part of a dataset, each of its samples counted once.
struct Evaluated {
  double loss = 0;           // nats per label token
  int64_t label_tokens = 0;  // that it is the mean of
  bool complete = true;      // false: ended before its last sample
};
// What goes on around an evaluation. All ranks have the same functions, or none.
struct EvaluationWatch {
  std::function<void(int64_t done, int64_t all)> progress = {};  // global batches; before each
  std::function<bool()> stop = {};  // after each batch but the last: end here? One rank's yes is enough
};

// What a rank computes on. All outlive the trainer.
struct Machine {
  Backend* backend = nullptr;
  Memory* memory = nullptr;
  Communicator* world = nullptr;
};

class Trainer {
 public:
  // `dataset` may be null on meta. With `sizes` (see measure_arenas) nothing is allocated after construction
  // but the buffers of the first gather (GatherBuffers).
  Trainer(const RunSpec& spec, const Machine& machine, const Dataset* dataset, const ArenaSizes* sizes);
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;
  Trainer(Trainer&&) = delete;
  Trainer& operator=(Trainer&&) = delete;
  ~Trainer() = default;

  // Step number `step`, counted from 0 (people count from 1, and so do messages). A loss or gradient that is not finite
  // ends the run with an error naming the first bad tensor; weights are then still those before the step.
  StepResult step(int64_t step);
  // Replaces the weights by those of a hub directory, this rank's part of them.
  ImportCount load(const HubMatch& weights, const std::function<void(int64_t done, int64_t all)>& progress);
  // Mean loss of the first `samples` samples of `dataset`, without gradients; the last global batch is filled up with
  // samples that do not count. Collective.
  Evaluated evaluate(const Dataset& dataset, int64_t samples, const EvaluationWatch& watch = {});

  // The sum of the ranks' values. Collective; the host waits for it.
  int64_t sum_over_world(int64_t value, std::string_view what) {
    return sum_over(mesh_.world, {.own = value}, what).own;
  }
  // The greatest of them. Likewise.
  int64_t max_over_world(int64_t value, std::string_view what);

  Context& context() { return ctx_; }
  Mesh& mesh() { return mesh_; }
  Stage& stage() { return stage_; }
  Runtime& runtime() { return runtime_; }
  const RunSpec& spec() const { return spec_; }
  const MemoryLedger& ledger() const { return memory_.ledger(); }

 private:
  void write_state(int64_t step, int64_t label_tokens);
  LabelTokens sum_over(Communicator& ranks, const LabelTokens& values, std::string_view what);
  struct Losses {
    double loss = 0;
    double mtp = 0;
  };
  Losses sum_losses(const LabelTokens& labels);
  std::vector<LayerLoad> sum_loads();
  [[noreturn]] void explain_non_finite(int64_t step, double loss, double norm);

  RunSpec spec_;
  Memory& memory_;
  Context ctx_;
  Mesh mesh_;
  GateForecast forecast_;
  StepBatches batches_;
  Stage stage_;
  Runtime runtime_;
  AdamWOptimizer optimizer_;
  Arena step_arena_;
  StepTensors step_tensors_;
  Tensor sum_squares_;  // f64 [1]
  Tensor counts_;       // i64 [2]
};

}  // namespace sluice
