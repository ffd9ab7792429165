// RunSpec: a configuration resolved for a number of ranks: every size known and checked, nothing left to decide.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/mesh.h"
#include "config/config.h"
#include "data/sampling.h"
#include "model/model_config.h"
#include "nn/block_config.h"
#include "optim/adamw.h"
#include "optim/lr_schedule.h"
#include "parallel/schedule.h"
#include "parallel/stage.h"
#include "trainer/gate_counts.h"

namespace sluice {

// Where schedules end, in steps.
struct Horizon {
  std::optional<int64_t> steps = {};  // where the configuration does not say
  // lr_scheduler.lr_decay_steps and wd_incr_steps, where they were given, now or in an earlier part of the run.
  std::optional<int64_t> decay = {};
  std::optional<int64_t> weight_decay = {};
};

struct RunSpec {
  ModelConfig model;
  MeshSpec mesh;
  Sampling sampling;  // global batch, micro-batch, data-parallel ranks
  int64_t seq_len = 0;
  int64_t local_batch = 0;  // LBS of the table: sequences per data-parallel rank per local batch
  ScheduleKind schedule = ScheduleKind::one_f_one_b;
  int chunks = 1;  // virtual stages per rank
  RecomputePolicy recompute;
  RouterKind router = RouterKind::softmax_topk;
  GateSpec gate;                                   // of a forced router; else what a forecast assumes
  std::shared_ptr<GateCounts> shared_counts = {};  // see gate_counts()
  double aux_loss_coef = 0;                        // weight of the router's balance loss
  std::optional<BalanceOver> aux_loss_over = {};   // see MoeConfig
  double router_z_loss_coef = 0;                   // of the router's z-loss
  double z_loss_coef = 0;                          // of the logits' z-loss
  double mtp_loss_weight = 0;                      // of the extra layer's loss, with ModelConfig::mtp
  int64_t local_shard = 1;                         // see MoeConfig
  bool reshard_after_forward = false;              // dense parameters
  bool reshard_experts = false;
  DType dtype = DType::f32;
  bool optimize = true;  // false: no step is made, and there is no optimizer
  AdamWOptions optimizer;
  double selection_bias_rate = 1e-3;  // of sigmoid routers, in each step
  LrSchedule lr;
  WeightDecaySchedule weight_decay;
  bool expert_load = false;   // counted each step and read by the host: StepResult::expert_load
  bool gradient_norm = true;  // computed each step: printed, and a norm that is not finite stops the run
  double max_norm = 0;        // 0: no clipping
  double load_factor = 1.5;
  uint64_t staging_bytes = 0;  // of each rank's host memory, for saving while training goes on
  uint64_t seed = 0;
  int64_t steps = 0;
  Horizon horizon;            // that `lr` and `weight_decay` were made for
  int64_t further_steps = 0;  // that follow them and are no part of the run: a benchmark's profiled one

  int64_t tokens_per_step() const { return sampling.global_batch * seq_len; }
  int64_t accumulation() const { return sampling.global_batch / (local_batch * mesh.dp()); }
  // Whether the number of rows a rank's experts get is known only by running.
  bool load_varies() const { return router != RouterKind::forced && mesh.ep > 1; }
  // What the gate sends, counted once for all that share it: `shared_counts` where they are of this gate, else new
  // ones.
  std::shared_ptr<GateCounts> gate_counts() const;
  Schedule make_schedule() const;
  StageConfig stage() const;
};

// What a configuration lays over its model's config.json.
std::vector<HfOverride> model_overrides(const Config& config);
// The model a configuration names, with its overrides.
ModelConfig model_of(const Config& config);
// Virtual stages per rank: stated, or from layers_per_stage rounded as the configuration says.
int chunks_per_rank(const config::Pipeline& pipeline, int64_t layers, int64_t pp);
// Of moments, for weights of this type.
DType state_dtype_of(const Config& config, DType weights);
// A spec whose run has `steps`: its schedules end there, or where they did before, for a run that goes on, unless the
// configuration says where. User error where warm-up leaves nothing to decay over.
RunSpec with_steps(RunSpec spec, const Config& config, int64_t steps, const Horizon& before = {});
// Patterns of optimizer.param_group_overrides that no parameter's name has.
std::vector<std::string> unmatched_patterns(const Config& config, const ModelConfig& model);
// What is resolved: a run on this machine, or a plan for any machine. What belongs to training alone (the gradient's
// norm, how experts are used) a run that is to `train` has always, the others where the file's recipe is to train;
// memory to save by way of a `run` has not, since nothing of it is saved.
enum class Purpose : uint8_t { run, train, plan };
// Throws user errors for what cannot run on `ranks` ranks.
RunSpec resolve(const Config& config, int ranks, Purpose purpose = Purpose::run);

}  // namespace sluice
