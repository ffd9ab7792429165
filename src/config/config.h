// The configuration: one struct per section of the YAML file, under NeMo AutoModel's names. Each field is declared
// once, in `fields`; the parser, the defaults, the checks, the key listing and the resolved dump all come from there.
//   v(name, member, meaning [, bounds or words])   a value
//   v.section(name, member, meaning)               a nested section
//   v.ignore(name, reason)                         a key (with all below it) that is read and has no effect
//   v.refuse(name, reason)                         a key (with all below it) that cannot be had
//   v.renamed(old, now)                            an older name of a key or section, both written in full
//   v.open(fields, meaning)                        any further key of this section goes to `fields`
// "checked, not used" marks choices between NeMo's kernels: sluice has its own, but a word that NeMo would refuse is
// a mistake here too. Keys marked [sluice] are not NeMo's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
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
  std::optional<std::int64_t> val_every_steps;

  template <class V>
  void fields(V& v) {
    v("global_batch_size", global_batch_size, "sequences per optimizer step, over all ranks", count);
    v("local_batch_size", local_batch_size, "sequences per data-parallel rank per local batch", count);
    v("max_steps", max_steps, "optimizer steps of the run, warm-up included; null: what num_epochs have", count);
    v("num_epochs", num_epochs, "passes over the data, unless max_steps end the run first; null: what max_steps take",
      count);
    v("ckpt_every_steps", ckpt_every_steps, "checked, not used: checkpoints are not available yet", count);
    v("val_every_steps", val_every_steps, "steps between validations; null: never", count);
    v.ignore("gc_every_steps", "steers Python's garbage collector");
    v.ignore("preemption_signal", "steers NeMo's signal handler");
    v.ignore("save_checkpoint_every_epoch", "checkpoints are not available yet");
    v.ignore("validate_on_checkpoint", "checkpoints are not available yet");
    v.ignore("log_remote_every_steps", "no reports leave the machine; see logging.jsonl");
    v.ignore("loss_average_window_steps", "the end of a run says the mean of its last steps");
  }
};

struct DistEnv {
  std::string backend = "nccl";
  double timeout_minutes = 10;

  template <class V>
  void fields(V& v) {
    v("backend", backend, "checked, not used: the communicator follows the device and the launcher",
      {"nccl", "gloo", "mpi", "inproc"});
    v("timeout_minutes", timeout_minutes, "how long a collective may wait before the job is ended", positive);
  }
};

struct Pipeline {
  Schedule pp_schedule = Schedule::one_f_one_b;
  std::int64_t pp_microbatch_size = 1;
  std::optional<std::int64_t> layers_per_stage;
  std::optional<Rounding> round_virtual_stages_to_pp_multiple;
  std::optional<std::int64_t> virtual_stages;

  template <class V>
  void fields(V& v) {
    v("pp_schedule", pp_schedule, "order of forward, backward and weight gradients (inert when pp_size is 1)");
    v("pp_microbatch_size", pp_microbatch_size, "sequences per pass through the pipeline", count);
    v("layers_per_stage", layers_per_stage, "layers of a virtual stage; null: spread evenly", count);
    v("round_virtual_stages_to_pp_multiple", round_virtual_stages_to_pp_multiple,
      "how layers_per_stage is rounded to whole virtual stages per rank");
    v("virtual_stages", virtual_stages, "[sluice] stages per rank, stated; wins over layers_per_stage", count);
    v.ignore("_target_", "names a Python class");
    v.ignore("scale_grads_in_schedule", "gradients are divided once, by the step's label tokens");
    v.ignore("patch_inner_model", "patches Python modules");
    v.ignore("patch_causal_lm_model", "patches Python modules");
    v.ignore("patch_stage_backward_maybe_with_nosync", "patches Python modules");
    v.ignore("pp_batch_size", "NeMo sets it from local_batch_size, and so does sluice");
    v.ignore("pp_seq_len", "shapes are known from the model and dataset.seq_len");
    v.ignore("pp_recv_buffer_pool", "memory is planned before the run");
    v.ignore("pp_recv_buffer_pool_slack", "memory is planned before the run");
    v.ignore("dtype", "what stages exchange has runtime.dtype");
  }
};

struct MoeParallel {
  bool reshard_after_forward = false;
  std::optional<bool> experts_reshard_after_forward;

  template <class V>
  void fields(V& v) {
    v("reshard_after_forward", reshard_after_forward, "free gathered weights after forward, gather again in backward");
    v("experts_reshard_after_forward", experts_reshard_after_forward, "the same for experts; null: as the rest");
    v.ignore("_target_", "names a Python function");
    v.ignore("wrap_outer_model", "steers how FSDP wraps Python modules");
    v.ignore("ignore_router_for_ac", "recomputation always keeps the routing: nothing is decided twice");
  }
};

struct Distributed {
  Strategy strategy = Strategy::fsdp2;
  std::int64_t tp_size = 1;
  std::int64_t cp_size = 1;
  std::int64_t pp_size = 1;
  std::int64_t ep_size = 1;
  std::optional<std::int64_t> dp_size;
  std::int64_t dp_replicate_size = 1;
  bool sequence_parallel = false;
  ActivationCheckpointing activation_checkpointing = ActivationCheckpointing::none;
  Pipeline pipeline;
  MoeParallel moe;

  template <class V>
  void fields(V& v) {
    v("strategy", strategy, "how dense parameters are sharded over data-parallel ranks");
    v("tp_size", tp_size, "tensor parallel ranks", count);
    v("cp_size", cp_size, "context parallel ranks", count);
    v("pp_size", pp_size, "pipeline parallel ranks", count);
    v("ep_size", ep_size, "expert parallel ranks, within one pipeline stage", count);
    v("dp_size", dp_size, "data parallel ranks; null: ranks / (tp x cp x pp)", count);
    v("dp_replicate_size", dp_replicate_size, "replicas among the data parallel ranks (HSDP)", count);
    v("sequence_parallel", sequence_parallel, "shard activations along the sequence between tensor parallel layers");
    v("activation_checkpointing", activation_checkpointing,
      "what backward recomputes (true: full), unless memory.recompute says");
    v.section("pipeline", pipeline, "pipeline schedule and stages");
    v.section("moe", moe, "sharding of mixture-of-experts models");
    v.ignore("activation_checkpointing_scope", "these models have one kind of layer stack");
    v.ignore("defer_fsdp_grad_sync", "gradients are reduced once per optimizer step");
    v.ignore("enable_async_tensor_parallel", "steers torch's compiler");
    v.ignore("enable_compile", "steers torch's compiler");
    v.ignore("mp_policy", "weights and products have runtime.dtype; gradients are summed in fp32 or wider always");
    v.ignore("offload_policy", "weights stay where they are computed with");
    v.ignore("enable_fsdp2_prefetch", "the next block is always gathered ahead");
    v.ignore("fsdp2_backward_prefetch_depth", "the next block is always gathered ahead");
    v.ignore("fsdp2_forward_prefetch_depth", "the next block is always gathered ahead");
    v.ignore("patch_is_packed_sequence", "patches Python modules");
  }
};

struct HubConfig {
  ConfigSource target = ConfigSource::from_pretrained;
  std::optional<std::string> pretrained_model_name_or_path;
  HubFields overrides;

  template <class V>
  void fields(V& v) {
    v("_target_", target, "how the model's config is found");
    v("pretrained_model_name_or_path", pretrained_model_name_or_path,
      "a hub id with a built-in card, or a directory with config.json; null: all fields stand here");
    v.ignore("trust_remote_code", "no Python is run");
    v.ignore("revision", "nothing is fetched from the hub");
    v.open(overrides, "fields of the Hugging Face config.json, laid over the named model's");
  }
};

struct TeFp8 {
  std::optional<Fp8Recipe> recipe;

  template <class V>
  void fields(V& v) {
    v("recipe", recipe, "8-bit products of NeMo's; sluice's have runtime.dtype, and it says so");
    v.ignore("_target_", "names a Python class");
  }
};

struct Backend {
  std::string attn = "te";
  std::string linear = "te";
  std::string rms_norm = "te";
  std::string rope = "torch";
  bool rope_fusion = true;
  std::string experts = "torch_mm";
  std::string dispatcher = "deepep";
  std::int64_t dispatcher_num_sms = 20;
  bool fake_balanced_gate = false;
  double fake_gate_noise = 0;
  TeFp8 te_fp8;

  template <class V>
  void fields(V& v) {
    v("attn", attn, "attention of NeMo's: checked; sluice has its own, which bench names",
      {"te", "sdpa", "flex", "eager", "tilelang", "cudnn", "magi"});
    v("linear", linear, "its products, likewise", {"torch", "te", "quack"});
    v("rms_norm", rms_norm, "its norms, likewise", {"torch", "torch_fp32", "te", "quack"});
    v("rope", rope, "checked, not used", {"torch", "quack"});
    v("rope_fusion", rope_fusion, "checked, not used");
    v("experts", experts, "its products of the experts, likewise",
      {"torch", "te", "gmm", "torch_mm", "torch_mm_mxfp8"});
    v("dispatcher", dispatcher, "how its tokens travel, likewise", {"torch", "deepep", "hybridep", "uccl_ep", "mok"});
    v("dispatcher_num_sms", dispatcher_num_sms, "checked, not used", count);
    v("fake_balanced_gate", fake_balanced_gate, "route by the published balanced gate (unless benchmark.balance says)");
    v("fake_gate_noise", fake_gate_noise, "noise of that gate, 0 to 1: 0.1 loads about 1.2x, 0.5 about 2x",
      Range{0, 1});
    v.section("te_fp8", te_fp8, "8-bit products");
    v.ignore("_target_", "names a Python class");
    v.ignore("enable_deepep", "older choice between NeMo's kernels");
    v.ignore("enable_hf_state_dict_adapter", "exported weights carry Hugging Face names always");
    v.ignore("enable_fsdp_optimizations", "gradients are reduced once per optimizer step");
    v.ignore("enable_fsdp_optimization", "gradients are reduced once per optimizer step");
    v.ignore("gate_precision", "routers compute in fp32 always");
    v.ignore("dispatcher_share_token_dispatcher", "steers DeepEP's buffers");
    v.ignore("dispatcher_async_dispatch", "steers DeepEP's streams");
    v.ignore("compile_attn", "steers torch's compiler");
    v.ignore("compile_mla", "steers torch's compiler");
    v.ignore("cuda_graph", "steers CUDA graphs of Python modules");
    v.ignore("mlp", "sluice has its own kernels");
  }
};

struct Model {
  ModelSource target = ModelSource::from_config;
  HubConfig config;
  Backend backend;
  std::optional<double> aux_loss_coef;
  bool aux_loss_of_config = false;
  double mtp_loss_weight = 0;
  std::optional<double> gate_bias_update_factor;
  std::optional<bool> load_weights;
  std::string torch_dtype = "auto";

  template <class V>
  void fields(V& v) {
    v("_target_", target, "how weights begin: from_config draws them at random, unless load_weights says otherwise");
    v("load_weights", load_weights,
      "[sluice] begin with the directory's safetensors; null: if there are any and the recipe is train");
    v("aux_loss_coef", aux_loss_coef,
      "[sluice] weight of the balance loss (sigmoid router: of each sequence); null: the family's", non_negative);
    v("aux_loss_of_config", aux_loss_of_config,
      "[sluice] without aux_loss_coef: config.json's router_aux_loss_coef, as in NeMo");
    v("gate_bias_update_factor", gate_bias_update_factor,
      "[sluice] step of a sigmoid router's selection bias, each optimizer step; null: 1e-3", non_negative);
    v("mtp_loss_weight", mtp_loss_weight,
      "[sluice] weight of the loss of DeepSeek V3's extra layer; 0: the layer is left out", non_negative);
    v("torch_dtype", torch_dtype,
      "of NeMo's weights: float32 says that optimizer.state_dtype is fp32; products have runtime.dtype",
      {"auto", "bfloat16", "bf16", "float32", "fp32"});
    v.section("config", config, "which model");
    v.section("backend", backend, "NeMo's choice of kernels, and the gate");
    v.ignore("trust_remote_code", "no Python is run");
    v.ignore("is_meta_device", "weights are made where they stay");
    v.ignore("load_base_model", "model.load_weights says whether a model's weights are loaded");
    v.ignore("output_hidden_states", "steers Python modules");
    v.ignore("force_hf", "chooses between Python modules");
    v.ignore("use_liger_kernel", "chooses between NeMo's kernels");
    v.ignore("use_sdpa_patching", "chooses between NeMo's kernels");
    v.ignore("sdpa_method", "chooses between NeMo's kernels");
    v.ignore("attn_implementation", "chooses between NeMo's kernels");
    v.ignore("cache_dir", "nothing is fetched from the hub");
  }
};

// NeMo's 8-bit products of torchao.
struct Fp8 {
  bool enabled = false;
  std::optional<std::string> recipe_name;

  template <class V>
  void fields(V& v) {
    v("enabled", enabled, "8-bit products of NeMo's; sluice's have runtime.dtype, and it says so");
    v("recipe_name", recipe_name, "how they are scaled");
    v.ignore("enable_fsdp_float8_all_gather", "steers torchao");
    v.ignore("precompute_float8_dynamic_scale_for_fsdp", "steers torchao");
    v.ignore("force_recompute_fp8_weight_in_bwd", "steers torchao");
    v.ignore("filter_fqns", "steers torchao");
    v.ignore("emulate", "steers torchao");
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
    v.ignore("use_checkpoint_opt_param_scheduler", "checkpoints are not available yet");
    v.ignore("override_opt_param_scheduler", "checkpoints are not available yet");
  }
};

struct LossFn {
  Loss target = Loss::cross_entropy;

  template <class V>
  void fields(V& v) {
    v("_target_", target, "loss; the head is fused and chunked under each of NeMo's names");
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
  Split split = Split::all;
  std::int64_t holdout_every = 10;

  template <class V>
  void fields(V& v) {
    v("_target_", target, "mock: random tokens; bytes: the bytes of files [sluice]");
    v("seq_len", seq_len, "tokens of a sequence", count);
    v("num_samples", num_samples, "how many to use, see num_samples_are; null: all", count);
    v("num_samples_are", num_samples_are,
      "[sluice] sequences, or local batches of each data-parallel rank as NeMo's MockIterableDataset counts");
    v("vocab_size", vocab_size, "mock: tokens are below it; null: the model's", count);
    v("path", path, "[sluice] bytes: a file, a directory (all its files) or a glob pattern");
    v("split", split, "[sluice] bytes: which of the blocks that holdout_every tells apart");
    v("holdout_every", holdout_every, "[sluice] bytes: every so many blocks one is for validation",
      Range{2, max_count});
    v.ignore("batch_size", "set from step_scheduler.local_batch_size");
    v.ignore("tokenizer", "mock data and bytes need none");
    v.ignore("seed", "data is drawn by the run's seed");
    v.ignore("eod_token_id", "mock tokens are random, without ends of documents");
  }
};

// The row as it was published: its columns, null where the page has none or "-". `corrected_*` is what the page would
// say if it counted this row as the others.
struct Published {
  std::optional<std::int64_t> gpus;
  std::optional<std::string> machine;
  std::optional<std::string> precision;
  std::optional<std::int64_t> gbs;
  std::optional<std::int64_t> mbs;
  std::optional<std::int64_t> lbs;
  std::optional<std::int64_t> ga;
  std::optional<std::int64_t> seq_len;
  std::optional<std::int64_t> tp;
  std::optional<std::int64_t> pp;
  std::optional<std::int64_t> cp;
  std::optional<std::int64_t> ep;
  std::optional<std::int64_t> vp;
  std::optional<std::int64_t> fsdp;
  std::optional<std::string> kernels;
  std::optional<double> step_time_s;
  std::optional<double> tflops_per_s_per_gpu;
  std::optional<double> tokens_per_s_per_gpu;
  std::optional<double> corrected_tflops;
  std::optional<std::string> corrected_because;
  std::optional<std::string> notes;
  std::optional<std::string> step;

  template <class V>
  void fields(V& v) {
    v("gpus", gpus, "[sluice] GPUs it ran on", count);
    v("machine", machine, "[sluice] what they were");
    v("precision", precision, "[sluice] of its products");
    v("gbs", gbs, "[sluice] sequences per optimizer step", count);
    v("mbs", mbs, "[sluice] sequences in one forward pass", count);
    v("lbs", lbs, "[sluice] sequences per data-parallel rank per local batch", count);
    v("ga", ga, "[sluice] gradient accumulation steps", count);
    v("seq_len", seq_len, "[sluice] tokens of a sequence", count);
    v("tp", tp, "[sluice] tensor parallel ranks", count);
    v("pp", pp, "[sluice] pipeline parallel ranks", count);
    v("cp", cp, "[sluice] context parallel ranks", count);
    v("ep", ep, "[sluice] expert parallel ranks", count);
    v("vp", vp, "[sluice] pipeline stages per rank", count);
    v("fsdp", fsdp, "[sluice] ranks that shard a dense parameter", count);
    v("kernels", kernels, "[sluice] libraries its kernels came from");
    v("step_time_s", step_time_s, "[sluice] seconds per optimizer step", positive);
    v("tflops_per_s_per_gpu", tflops_per_s_per_gpu, "[sluice] model TFLOP per second per GPU, as printed", positive);
    v("tokens_per_s_per_gpu", tokens_per_s_per_gpu, "[sluice] tokens per second per GPU", positive);
    v("corrected_tflops", corrected_tflops, "[sluice] what that is, counted as for the other rows", positive);
    v("corrected_because", corrected_because, "[sluice] and how it was counted");
    v("notes", notes, "[sluice] what the page says of how it was run");
    v("step", step, "[sluice] what the page counts as a step");
  }
};

struct Benchmark {
  std::int64_t warmup_steps = 2;
  std::optional<double> peak_tflops;
  std::optional<std::string> json_output_path;
  std::optional<Balance> balance;
  double skew = 2;
  std::int64_t local_shard = 1;
  bool optimizer = true;
  std::optional<std::string> row;
  Published published;
  std::optional<std::int64_t> nsys_start;
  std::optional<std::int64_t> nsys_end;
  std::vector<std::int64_t> nsys_ranks;

  template <class V>
  void fields(V& v) {
    v("warmup_steps", warmup_steps, "first steps, left out of the timing", count_or_0);
    v("peak_tflops", peak_tflops, "denominator of MFU, TFLOP/s; null: measured on this machine", positive);
    v("json_output_path", json_output_path, "file for the results");
    v("balance", balance, "[sluice] how tokens find experts; null: model.backend.fake_balanced_gate decides");
    v("skew", skew, "[sluice] balance skewed: load of the fullest expert over the mean", Range{.low = 1});
    v("local_shard", local_shard,
      "[sluice] N: as one of N expert-parallel ranks computes, alone, with 1/N of the experts", count);
    v("optimizer", optimizer, "[sluice] false: leave out the optimizer's step and its memory");
    v("row", row, "[sluice] label of the row in the table");
    v("nsys_start", nsys_start, "step, counted from 0, that nsys records from; -1 or null: never", step_or_none);
    v("nsys_end", nsys_end, "last step that nsys records; -1 or null: that of the run", step_or_none);
    v("nsys_ranks", nsys_ranks, "ranks that start and stop nsys", count_or_0);
    v.section("published", published, "the published figures of the row");
    v.ignore("num_nodes", "NeMo does not read it either");
    v.ignore("detailed_timers", "steps are timed without waiting between their parts");
  }
};

struct Checkpoint {
  bool enabled = false;
  std::string checkpoint_dir = "checkpoints";
  std::optional<std::int64_t> max_recent_checkpoints;

  template <class V>
  void fields(V& v) {
    v("enabled", enabled, "true is refused: checkpoints are not available yet");
    v("checkpoint_dir", checkpoint_dir, "checked, not used: checkpoints are not available yet");
    v("max_recent_checkpoints", max_recent_checkpoints, "checked, not used: checkpoints are not available yet", count);
    v.ignore("load_base_model", "model.load_weights says whether a model's weights are loaded");
    v.ignore("model_save_format", "checkpoints are not available yet");
    v.ignore("save_consolidated", "checkpoints are not available yet");
    v.ignore("is_async", "steers torch's checkpoint writer");
    v.ignore("wait_for_staging", "steers torch's checkpoint writer");
    v.ignore("restore_from", "checkpoints are not available yet");
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

struct Memory {
  double load_factor = 1.5;
  std::optional<Recompute> recompute;

  template <class V>
  void fields(V& v) {
    v("load_factor", load_factor, "[sluice] room for routed tokens over the balanced load", Range{1, 1e6});
    v("recompute", recompute, "[sluice] null: as distributed.activation_checkpointing");
  }
};

struct Runtime {
  DeviceKind device = DeviceKind::cpu;
  Dtype dtype = Dtype::f32;
  std::optional<std::int64_t> threads;
  bool async_comm = false;
  bool deterministic = true;
  std::optional<double> watchdog_seconds;

  template <class V>
  void fields(V& v) {
    v("device", device, "[sluice] cpu; ref: plain loops; cuda: a GPU; meta: counts memory and time only");
    v("dtype", dtype, "[sluice] storage of parameters and activations; on cuda bf16 unless given");
    v("threads", threads, "[sluice] compute threads of the process; null: one per core", Range{1, 4096});
    v("async_comm", async_comm, "[sluice] in-process collectives on a thread of their own");
    v("deterministic", deterministic, "[sluice] same seed and layout give the same bits; on the CPU always so");
    v("watchdog_seconds", watchdog_seconds, "[sluice] null: dist_env.timeout_minutes", positive);
  }
};

struct Logging {
  std::optional<std::string> jsonl;
  std::int64_t every = 1;

  template <class V>
  void fields(V& v) {
    v("jsonl", jsonl, "[sluice] file that gets one JSON object per logged step");
    v("every", every, "[sluice] steps between logged lines", count);
  }
};

// Where a value came from.
struct Origin {
  // program: what NeMo AutoModel or torch take where their file or class leaves the value out (defaults.cpp).
  enum class Kind { preset, file, command_line, rule, program };
  Kind kind = Kind::preset;
  std::string text;       // "examples/my.yaml:23", "--distributed.ep_size", "scale laptop"; empty for a preset
  std::string word = {};  // of a choice: as it was written, "torch.optim.AdamW"

  static Origin rule(std::string name) { return {Kind::rule, std::move(name)}; }
  // A person gave the value, or a rule such as a scale: it is no default.
  bool given() const { return kind != Kind::preset && kind != Kind::program; }
  // For messages: where to look.
  std::string place() const { return kind == Kind::command_line ? "command line" : text; }
};

// A key that was given and has no effect, where, and why.
struct IgnoredKey {
  std::string key;
  std::string where;
  std::string reason;
};

// Whose defaults hold for what a file leaves out.
enum class Program { sluice, nemo };

struct Config {
  Recipe recipe = Recipe::train;
  std::int64_t seed = 1234;
  Rng rng;
  StepScheduler step_scheduler;
  DistEnv dist_env;
  Distributed distributed;
  Model model;
  Fp8 fp8;
  Optimizer optimizer;
  LrScheduler lr_scheduler;
  LossFn loss_fn;
  Dataset dataset{.target = DatasetKind::mock};
  Dataset validation_dataset;
  Benchmark benchmark;
  Checkpoint checkpoint;
  ClipGradNorm clip_grad_norm;
  PackedSequence packed_sequence;
  Memory memory;
  Runtime runtime;
  Logging logging;

  // Not part of the schema: where each value that is not a preset came from, by key, and what had no effect.
  std::map<std::string, Origin, std::less<>> origins;
  std::vector<IgnoredKey> ignored;
  Program program = Program::sluice;

  Origin origin(std::string_view key) const;
  // Whether it was given; a default of whatever program is not.
  bool is_set(std::string_view key) const { return origin(key).given(); }

  // Rules between sections, in one place.
  Recompute recompute() const;      // memory.recompute where given, else distributed.activation_checkpointing
  Balance balance() const;          // benchmark.balance where given, else model.backend.fake_balanced_gate
  double watchdog_seconds() const;  // runtime.watchdog_seconds where given, else dist_env.timeout_minutes

  template <class V>
  void fields(V& v) {
    v("recipe", recipe, "what the file is for");
    v("seed", seed, "of weights, mock tokens and gates", non_negative);
    v.section("rng", rng, "older place of the seed");
    v.section("step_scheduler", step_scheduler, "batch sizes and length of the run");
    v.section("dist_env", dist_env, "communication between ranks");
    v.section("distributed", distributed, "parallel degrees");
    v.section("model", model, "the model");
    v.section("fp8", fp8, "8-bit products");
    v.section("optimizer", optimizer, "the optimizer");
    v.section("lr_scheduler", lr_scheduler, "the learning rate over the run");
    v.section("loss_fn", loss_fn, "the loss");
    v.section("dataset", dataset, "training data");
    v.section("validation_dataset", validation_dataset, "validation data");
    v.section("benchmark", benchmark, "what a benchmark times and prints");
    v.section("checkpoint", checkpoint, "checkpoints of a run: not available yet");
    v.section("clip_grad_norm", clip_grad_norm, "gradient clipping");
    v.section("packed_sequence", packed_sequence, "several documents in a sequence");
    v.section("memory", memory, "what is kept, and room for imbalance");
    v.section("runtime", runtime, "device, numbers and threads");
    v.section("logging", logging, "records of the run");
    v.ignore("dataloader", "batches are made in the process, in the order of global sample ids");
    v.ignore("validation_dataloader", "batches are made in the process, in the order of global sample ids");
    v.ignore("ci", "settings of NeMo's own test jobs");
    v.ignore("wandb", "no reports leave the machine; see logging.jsonl");
    v.ignore("mlflow", "no reports leave the machine; see logging.jsonl");
    v.ignore("comet", "no reports leave the machine; see logging.jsonl");
    v.ignore("moe_metrics", "steers NeMo's loggers");
    v.ignore("nvtx", "annotates Python modules");
    v.ignore("compile", "steers torch's compiler");
    v.ignore("slurm", "launching is left to mpirun or srun");
    v.refuse("peft", "sluice trains every weight, not adapters");
    v.refuse("qat", "sluice does not train for quantised weights");
    v.refuse("quantization", "sluice trains weights of runtime.dtype");
    // Until 2026 NeMo's files had a section for each Python object.
    v.renamed("autopipeline", "distributed.pipeline");
    v.renamed("parallelizer", "distributed.moe");
    v.renamed("parallelizer.activation_checkpointing", "distributed.activation_checkpointing");
    v.renamed("distributed._target_", "distributed.strategy");
    v.renamed("profiling", "benchmark");
    v.renamed("rng.seed", "seed");
    v.renamed("model.pretrained_model_name_or_path", "model.config.pretrained_model_name_or_path");
    v.renamed("dataset.seq_length", "dataset.seq_len");
    v.renamed("validation_dataset.seq_length", "validation_dataset.seq_len");
    v.renamed("peak_tflops", "benchmark.peak_tflops");
    v.renamed("step_scheduler.warmup_steps", "benchmark.warmup_steps");
  }
};

}  // namespace sluice::config

namespace sluice {
using config::Config;
}
