// The sections of a configuration that say how long and on what to train, and how a step is made. See config.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/types.h"

namespace sluice::config {

// NeMo's section of random numbers; its seed is Config::seed.
struct Rng {
  template <class V>
  void fields(V& v) {
    v.ignore("_target_", "names a Python class");
    v.ignore("ranked", "random numbers are functions of seed and place, whatever rank draws them");
  }
};

struct StepScheduler {
  std::int64_t global_batch_size = 8;
  std::int64_t local_batch_size = 1;
  std::optional<std::int64_t> max_steps = 100;
  std::optional<std::int64_t> num_epochs = 1;
  std::optional<std::int64_t> ckpt_every_steps;
  bool save_checkpoint_every_epoch = false;
  std::optional<std::int64_t> val_every_steps;
  bool validate_on_checkpoint = false;
  std::optional<double> max_minutes;
  std::vector<Signal> preemption_signal = {Signal::term};

  template <class V>
  void fields(V& v) {
    v("global_batch_size", global_batch_size, "sequences per optimizer step, over all ranks", count);
    v("local_batch_size", local_batch_size, "sequences per data-parallel rank per local batch", count);
    v("max_steps", max_steps, "optimizer steps of the run, warm-up included; null: what num_epochs have", count);
    v("num_epochs", num_epochs, "passes over the data, unless max_steps end the run first; null: what max_steps take",
      count);
    v("ckpt_every_steps", ckpt_every_steps, "steps between checkpoints; null: a tenth of the run", count);
    v("save_checkpoint_every_epoch", save_checkpoint_every_epoch, "a checkpoint at the end of each epoch too");
    v("val_every_steps", val_every_steps, "steps between validations; null: never", count);
    v("validate_on_checkpoint", validate_on_checkpoint, "validate before each checkpoint too");
    v("max_minutes", max_minutes, "[sluice] the run saves and ends after so long; --resume goes on; null: never",
      positive);
    v("preemption_signal", preemption_signal, "signals that save and end the run, beside TERM, INT, HUP and USR1");
    v.ignore("gc_every_steps", "steers Python's garbage collector");
    v.ignore("log_remote_every_steps", "no reports leave the machine; see logging.jsonl");
    v.ignore("loss_average_window_steps", "the end of a run says the mean of its last steps");
  }
};

struct Optimizer {
  OptimizerKind target = OptimizerKind::adamw;
  double lr = 1e-4;
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0;
  bool adam_w_mode = true;
  bool bias_correction = true;
  StateDtype state_dtype = StateDtype::fp32;
  DecayedParams decay_parameters = DecayedParams::matrices;
  std::vector<ParamGroupOverride> param_group_overrides;
  std::string amsgrad = "false";
  std::string maximize = "false";
  std::string moment1 = "float32";
  std::string moment2 = "float32";
  std::string master = "float32";

  template <class V>
  void fields(V& v) {
    v("_target_", target, "AdamW, or Adam, whose decay is part of the gradient; torch.optim.* has torch's defaults");
    v("lr", lr, "learning rate after warm-up", positive);
    v("betas", betas, "decay of the first and second moment, two numbers below 1", Range{0, 1});
    v("eps", eps, "added to the root of the second moment", positive);
    v("weight_decay", weight_decay, "of a step, times the learning rate", non_negative);
    v("adam_w_mode", adam_w_mode, "FusedAdam: false is Adam's decay");
    v("bias_correction", bias_correction, "FusedAdam: whether moments are divided by 1 - beta^step");
    v("state_dtype", state_dtype,
      "[sluice] fp32: masters and moments; bf16: moments, no masters; weights: as those are stored");
    v("decay_parameters", decay_parameters,
      "[sluice] matrices: norms, biases and sinks do not decay; all, as in torch and NeMo");
    v("param_group_overrides", param_group_overrides,
      "multipliers for parameters whose name in the hub's layout has the pattern (a regular expression)");
    constexpr const char* plain = "of torch: only false is available";
    v("amsgrad", amsgrad, plain, {"false"});
    v("maximize", maximize, plain, {"false"});
    constexpr const char* wide = "of FusedAdam: checked; state_dtype bf16 keeps moments in bf16";
    v("exp_avg_dtype", moment1, wide, {"float32", "torch.float32", "fp32"});
    v("exp_avg_sq_dtype", moment2, wide, {"float32", "torch.float32", "fp32"});
    v("master_weight_dtype", master, "of FusedAdam: checked; masters of bf16 weights are fp32",
      {"float32", "torch.float32", "fp32"});
    v.ignore("master_weights", "bf16 weights have fp32 masters with state_dtype fp32");
    v.ignore("store_param_remainders", "how FusedAdam stores its masters");
    v.ignore("foreach", "steers torch's optimizer loop");
    v.ignore("fused", "steers torch's optimizer loop");
    v.ignore("capturable", "steers torch's optimizer loop");
    v.ignore("differentiable", "steers torch's optimizer loop");
  }
};

struct LrScheduler {
  LrDecay lr_decay_style = LrDecay::constant;
  std::optional<std::int64_t> lr_warmup_steps = 0;
  std::optional<std::int64_t> lr_decay_steps;
  std::optional<double> init_lr;
  std::optional<double> max_lr;
  double min_lr = 0;
  std::optional<std::int64_t> wsd_decay_steps;
  std::optional<WsdDecay> lr_wsd_decay_style;
  std::optional<double> start_wd;
  std::optional<double> end_wd;
  std::optional<std::int64_t> wd_incr_steps;
  WeightDecayRamp wd_incr_style = WeightDecayRamp::constant;

  template <class V>
  void fields(V& v) {
    v("lr_decay_style", lr_decay_style, "shape of the learning rate after warm-up");
    v("lr_warmup_steps", lr_warmup_steps, "steps over which it rises linearly; null: a tenth of the run, at most 1000",
      count_or_0);
    v("lr_decay_steps", lr_decay_steps, "step at which it reaches min_lr; null: as many as the run has", count);
    v("init_lr", init_lr, "learning rate of the first step of warm-up; null: lr / (lr_warmup_steps + 1)", non_negative);
    v("max_lr", max_lr, "learning rate after warm-up; null: optimizer.lr", positive);
    v("min_lr", min_lr, "learning rate at the end of the decay", non_negative);
    v("wsd_decay_steps", wsd_decay_steps, "wsd: steps of its last phase, which ends at lr_decay_steps", count);
    v("lr_wsd_decay_style", lr_wsd_decay_style, "wsd: shape of that phase");
    v("start_wd", start_wd, "weight decay of the first step; null: optimizer.weight_decay", non_negative);
    v("end_wd", end_wd, "weight decay after wd_incr_steps; null: optimizer.weight_decay", non_negative);
    v("wd_incr_steps", wd_incr_steps, "steps between the two; null: as many as the run has", count);
    v("wd_incr_style", wd_incr_style, "shape between the two");
    v.ignore("use_checkpoint_opt_param_scheduler",
             "a resumed run keeps its schedule, with the learning rate given now");
    v.ignore("override_opt_param_scheduler", "a resumed run keeps its schedule, with the learning rate given now");
  }
};

struct LossFn {
  Loss target = Loss::cross_entropy;
  double z_loss_coef = 0;

  template <class V>
  void fields(V& v) {
    v("_target_", target, "loss; the head is fused and chunked under each of NeMo's names");
    v("z_loss_coef", z_loss_coef,
      "[sluice] weight of the mean of (log sum exp logits)^2, as in PaLM, not in the printed loss; 0: off",
      non_negative);
    v.ignore("fp32_upcast", "softmax statistics are always kept in fp32 or wider");
  }
};

struct Dataset {
  DatasetKind target = DatasetKind::none;
  std::int64_t seq_len = 4096;
  std::optional<std::int64_t> num_samples = std::nullopt;
  SampleUnit num_samples_are = SampleUnit::sequences;
  std::optional<std::int64_t> vocab_size = std::nullopt;
  std::optional<std::string> path = std::nullopt;
  TextSplit split = TextSplit::all;
  std::int64_t holdout_every = 10;

  template <class V>
  void fields(V& v) {
    v("_target_", target, "mock: random tokens; bytes: the bytes of files [sluice]");
    v("seq_len", seq_len, "tokens of a sequence", count);
    v("num_samples", num_samples, "how many to use, see num_samples_are; null: all", count);
    v("num_samples_are", num_samples_are,
      "[sluice] sequences, or local batches of each data-parallel rank as NeMo's MockIterableDataset counts");
    v("vocab_size", vocab_size, "mock: tokens are below it; null: the model's", count);
    v("path", path, "[sluice] bytes: a file, a directory (the text files in it) or a glob pattern");
    v("split", split, "[sluice] bytes: which of the blocks that holdout_every tells apart");
    v("holdout_every", holdout_every, "[sluice] bytes: every so many blocks one is for validation",
      Range{2, max_count});
    v.ignore("batch_size", "set from step_scheduler.local_batch_size");
    v.ignore("tokenizer", "mock data and bytes need none");
    v.ignore("seed", "data is drawn by the run's seed");
    v.ignore("eod_token_id", "mock tokens are random, without ends of documents");
  }
};

struct Checkpoint {
  bool enabled = true;
  std::optional<std::string> checkpoint_dir;
  std::optional<std::string> restore_from;
  std::optional<std::int64_t> max_recent_checkpoints = 3;
  std::optional<std::int64_t> keep_every_steps;
  std::string best_metric_key = "default";
  Consolidated save_consolidated = Consolidated::no;
  std::string model_save_format = "safetensors";
  bool is_async = true;
  std::optional<double> staging_gib;
  SaveFailure on_failure = SaveFailure::go_on;

  template <class V>
  void fields(V& v) {
    v("enabled", enabled, "save the run, so that it can be resumed");
    v("checkpoint_dir", checkpoint_dir, "the run's directory; null: runs/NAME, or NAME-2 and so on where one is");
    v("restore_from", restore_from, "LATEST, LOWEST_VAL or a checkpoint's directory: where the run goes on from");
    v("max_recent_checkpoints", max_recent_checkpoints, "how many to keep, beside the best; null: all", count);
    v("keep_every_steps", keep_every_steps, "[sluice] those of multiples of it are kept as well", count);
    v("best_metric_key", best_metric_key, "what LOWEST_VAL links the lowest of: the validation loss",
      {"default", "val_loss"});
    v("save_consolidated", save_consolidated, "a checkpoint's weights in the hub's layout too: the last one's, all");
    v("model_save_format", model_save_format, "both are written as safetensors", {"safetensors", "torch_save"});
    v("is_async", is_async, "training goes on while a checkpoint is written");
    v("staging_gib", staging_gib,
      "[sluice] host memory of a rank for that, in GiB; null: 1, or less where it saves less", non_negative);
    v("on_failure", on_failure, "[sluice] after a save that failed: go on, or end the run");
    v.ignore("load_base_model", "model.load_weights says whether a model's weights are loaded");
    v.ignore("wait_for_staging", "the next optimizer step waits until it may change what is being saved");
    v.ignore("cpu_offload", "each rank writes its own part");
    v.ignore("staging_dir", "a checkpoint is written beside the others and renamed");
    v.ignore("single_rank_consolidation", "one rank writes the hub's layout");
    v.ignore("consolidation_timeout_minutes", "the first rank writes the hub's layout; others do not wait");
    v.ignore("v4_compatible", "config.json is the model's own");
    v.ignore("diffusers_compatible", "these are language models");
    v.ignore("allow_legacy_pickle_restore", "pickles are not read");
    v.ignore("dequantize_base_checkpoint", "quantised weights are always decoded");
    v.ignore("skip_task_head_prefixes_for_base_model", "these models have no heads of other tasks");
    v.ignore("original_model_root_dir", "model.config names the model's directory");
    v.ignore("model_cache_dir", "model.config names the model's directory");
    v.ignore("model_repo_id", "model.config names the model");
    v.ignore("is_peft", "sluice trains every weight, not adapters");
  }
};

struct ClipGradNorm {
  std::optional<double> max_norm;

  template <class V>
  void fields(V& v) {
    v("max_norm", max_norm, "gradients are scaled down to this norm; null: never", positive);
  }
};

// Sequences of several documents.
struct PackedSequence {
  std::optional<std::int64_t> packed_sequence_size;

  template <class V>
  void fields(V& v) {
    v("packed_sequence_size", packed_sequence_size, "only 0 and null: packed sequences are not available yet",
      Range{0, 0});
    v.ignore("split_across_pack", "packed sequences are not available yet");
    v.ignore("packing_strategy", "packed sequences are not available yet");
    v.ignore("max_packs", "packed sequences are not available yet");
    v.ignore("drop_long_samples", "packed sequences are not available yet");
  }
};

}  // namespace sluice::config
