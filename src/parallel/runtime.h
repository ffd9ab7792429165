// The pipeline runtime: runs one rank's part of a schedule over the micro-batches of a step. It binds the arenas each
// phase may use, gathers parameters before and releases them after use, moves activations between stages, and starts
// reducing a chunk's gradients after its last contribution to them. One stage without pipelining is a schedule like any
// other.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "parallel/schedule.h"
#include "parallel/stage.h"

namespace sluice {

// What is wanted of a micro-batch; undefined ones are not.
struct BatchTensors {
  Tensor tokens;       // i32 [T]
  Tensor labels;       // i32 [T], the next token, or -100
  Tensor next_tokens;  // i32 [T], the next token; a sequence's last has none and is itself
  Tensor next_labels;  // i32 [T], the next token's label; a sequence's last has none: -100
  Tensor sample_ids;   // i64 [T / S]
};

// Where micro-batches come from.
class MicroBatchSource {
 public:
  MicroBatchSource() = default;
  MicroBatchSource(const MicroBatchSource&) = delete;
  MicroBatchSource& operator=(const MicroBatchSource&) = delete;
  virtual ~MicroBatchSource() = default;
  // Writes a micro-batch of the step; each may be asked for more than once. On meta nothing is written, and what is
  // returned answers for its routing until the step ends.
  virtual LoadForecast load(Context& ctx, int micro_batch, const BatchTensors& into) = 0;
};

struct RuntimeConfig {
  int64_t micro_batch_size = 1;  // sequences
  RecomputePolicy recompute;
};

// Bytes each arena of a runtime needed at its fullest, by name: what a plan measures and a run reserves.
using ArenaSizes = std::map<std::string, size_t>;

// An arena that needed more than was reserved.
struct ArenaGrowth {
  std::string arena;  // "chunk 0 activations 1"
  int chunks = 0;     // taken after the first
  size_t bytes = 0;   // of them
};

// Tensors of a step that outlive its phases.
struct StepTensors {
  Tensor state;  // f64 [kStepSlots]
  Tensor loss;   // f64 [2], += the sum of the losses this rank computed, and of those of the extra layer
  // f64 [layers of the model and the extra one, E], += the slots of this rank's tokens that went to each expert of its
  // layers; undefined: not counted.
  Tensor load;
};

class Runtime {
 public:
  // With `sizes` the arenas are reserved now, so that no step makes them larger.
  Runtime(Context& ctx, Mesh& mesh, Stage& stage, Schedule schedule, const RuntimeConfig& config, Memory& memory,
          const ArenaSizes* sizes);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  Runtime(Runtime&&) = delete;
  Runtime& operator=(Runtime&&) = delete;

  // Forward and backward of all micro-batches; gradients are reduced when it returns.
  void run(MicroBatchSource& source, const StepTensors& step);
  // Losses of `micro_batches` without gradients: step.loss += their sum.
  void evaluate(MicroBatchSource& source, const StepTensors& step, int micro_batches);

  const Schedule& schedule() const { return schedule_; }
  ArenaSizes arena_sizes() const;
  // Bytes in use in all arenas now.
  size_t in_use() const;
  bool holds(const void* address) const;
  // The action under way, or null outside of run().
  const Action* running() const { return running_; }
  // Arenas that needed more than was reserved.
  std::vector<ArenaGrowth> grown() const;
  // The arenas F and B use outside a step: for the optimizer's scratch.
  void bind_scratch();

 private:
  struct Flight;     // one micro-batch in one chunk, from F to its last W
  struct ArenaPool;  // arenas of one role and chunk
  Arena& arena(const std::string& name, MemoryKind kind);
  Flight& take_off(int chunk, int micro_batch);
  void land(Flight& flight);
  void forward(int chunk, int micro_batch, MicroBatchSource& source, const StepTensors& step, bool with_gradients);
  void backward(int chunk, int micro_batch, bool full);
  void weight(int chunk, int micro_batch);
  void start_reduce_if_last(int chunk);
  void add_up_shared_embedding();
  void bind_forward(const Flight& flight);
  void bind_backward(const Flight& flight, bool full);
  BlockInput block_input(const Flight& flight) const;
  // The same for the forward of a step, which counts the loads of a layer.
  BlockInput block_input(const Flight& flight, const Tensor& load, int64_t layer) const;
  int peer_of_stage(int model_stage) const { return model_stage % schedule_.stages; }

  Context& ctx_;
  Mesh& mesh_;
  Stage& stage_;
  Schedule schedule_;
  RuntimeConfig config_;
  Memory& memory_;
  const ArenaSizes* sizes_;
  std::map<std::string, std::unique_ptr<Arena>> arenas_;
  Arena* constants_;
  Arena* scratch_;
  Tensor cos_sin_;
  bool defers_ = false;  // the schedule has W of its own
  std::vector<std::unique_ptr<ArenaPool>> activations_;
  std::vector<std::unique_ptr<ArenaPool>> deferred_;
  std::map<std::pair<int, int>, std::unique_ptr<Flight>> flights_;
  std::vector<int> contributions_left_;  // per chunk, in this step
  const Action* running_ = nullptr;
};

}  // namespace sluice
