// Trainer: one rank's whole training program - parameters, runtime, optimizer, data. The same code runs on real memory
// and on meta, where it is the planner.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/hub_import.h"
#include "checkpoint/trained_state.h"
#include "optim/adamw.h"
#include "parallel/runtime.h"
#include "trainer/batches.h"
#include "trainer/expert_load.h"
#include "trainer/run_spec.h"

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

// Which step it is: to the run, to the optimizer and to the data. They differ where batches were left out.
struct StepPosition {
  int64_t step = 0;    // of the run; all count from 0 (people count from 1, and so do messages)
  int64_t update = 0;  // of the optimizer and its schedules
  int64_t batch = 0;   // of the data, in global batches
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

  // Step number `step`, counted from 0. A loss or gradient that is not finite ends the run with an error naming the
  // first bad tensor; weights are then still those before the step.
  StepResult step(int64_t step);
  // Its first half: forward and backward. Changes neither weights nor moments; equal on all ranks.
  StepResult compute_gradients(const StepPosition& at);
  // Its second half: the optimizer's step from the gradients of the last compute_gradients().
  void update_weights();
  // Whether the loss and the gradient norm of a step are.
  static bool finite(const StepResult& result);
  // Ends the run after a step whose result is not finite: an error naming the first bad tensor.
  [[noreturn]] void explain_non_finite(const StepPosition& at, const StepResult& result);

  // Replaces the weights by those of a hub directory, this rank's part of them.
  ImportCount load(const HubMatch& weights, const std::function<void(int64_t done, int64_t all)>& progress);
  // The same from a checkpoint of any layout, moments too.
  void load(const Checkpoint& checkpoint, const std::function<void(uint64_t done, uint64_t all)>& progress);
  // What a checkpoint keeps of this rank.
  TrainedState state() { return {stage_.groups(), spec_.optimize ? &optimizer_ : nullptr}; }
  // Where a save may copy it to while training goes on: RunSpec::staging_bytes, or as much as there is to copy.
  std::span<std::byte> staging() const { return staging_; }
  bool host_visible() const { return memory_.host_visible(); }
  // Mean loss of the first `samples` samples of `dataset`, without gradients; the last global batch is filled up with
  // samples that do not count. Collective.
  Evaluated evaluate(const Dataset& dataset, int64_t samples, const EvaluationWatch& watch = {});

  // The sum of the ranks' values. Collective; the host waits for it.
  int64_t sum_over_world(int64_t value, std::string_view what) {
    return sum_over_world(std::array{value}, what).front();
  }
  template <size_t N>
  std::array<int64_t, N> sum_over_world(const std::array<int64_t, N>& values, std::string_view what) {
    std::array<int64_t, N> sums{};
    std::ranges::copy(sum_over(mesh_.world, values, what), sums.begin());
    return sums;
  }
  // The greatest of them. Likewise.
  template <size_t N>
  std::array<int64_t, N> max_over_world(const std::array<int64_t, N>& values, std::string_view what) {
    std::array<int64_t, N> greatest{};
    std::ranges::copy(max_over(mesh_.world, values, what), greatest.begin());
    return greatest;
  }

  Context& context() { return ctx_; }
  Mesh& mesh() { return mesh_; }
  Stage& stage() { return stage_; }
  Runtime& runtime() { return runtime_; }
  const RunSpec& spec() const { return spec_; }
  const MemoryLedger& ledger() const { return memory_.ledger(); }

 private:
  void write_state(const StepPosition& at, int64_t label_tokens);
  void reserve_staging();
  std::vector<int64_t> sum_over(Communicator& ranks, std::span<const int64_t> values, std::string_view what);
  std::vector<int64_t> max_over(Communicator& ranks, std::span<const int64_t> values, std::string_view what);
  LabelTokens sum_labels(const LabelTokens& mine);
  struct Losses {
    double loss = 0;
    double mtp = 0;
  };
  Losses sum_losses(const LabelTokens& labels);
  std::vector<LayerLoad> sum_loads();

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
  Tensor sum_squares_;                   // f64 [1]
  Tensor counts_;                        // i64 [3]
  std::unique_ptr<Memory> host_memory_;  // of the staging, where the device's is not the host's
  std::unique_ptr<Arena> staging_arena_;
  std::span<std::byte> staging_;
};

}  // namespace sluice
