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

#include "config/benchmark_sections.h"
#include "config/model_sections.h"
#include "config/training_sections.h"
#include "config/types.h"

namespace sluice::config {

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
  ScheduleKind pp_schedule = ScheduleKind::one_f_one_b;
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
  DType dtype = DType::f32;
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

// Steps that are no good.
struct BadSteps {
  NonFinite non_finite = NonFinite::stop;
  Spike spike = Spike::off;
  double spike_deviations = 6;
  std::int64_t spike_window = 50;

  template <class V>
  void fields(V& v) {
    v("non_finite", non_finite,
      "[sluice] a loss or gradient norm that is not finite: end, leave the step out, go back");
    v("spike", spike, "[sluice] a loss far above the last ones: leave the step out, or go back to a checkpoint");
    v("spike_deviations", spike_deviations, "[sluice] standard deviations above their mean that are far", positive);
    v("spike_window", spike_window, "[sluice] how many losses are looked at", Range{2, max_count});
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
  BadSteps bad_steps;
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
    v.section("checkpoint", checkpoint, "what is saved of a run, where, and how long it is kept");
    v.section("clip_grad_norm", clip_grad_norm, "gradient clipping");
    v.section("packed_sequence", packed_sequence, "several documents in a sequence");
    v.section("memory", memory, "what is kept, and room for imbalance");
    v.section("runtime", runtime, "device, numbers and threads");
    v.section("bad_steps", bad_steps, "what happens when a step goes wrong");
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
