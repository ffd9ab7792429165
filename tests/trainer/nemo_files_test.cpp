// NeMo AutoModel's own files for pre-training models that sluice has, typed again from its examples, and what each of
// them says there: the values that its recipe resolves, and what still stops the file here.
#include "config/defaults.h"
#include "config/support.h"
#include "trainer/run_spec.h"
#include "trainer/scale_config.h"

namespace sluice::config {
namespace {

// What stops a file, why, and what a person would put in its place.
struct Stop {
  const char* written;
  const char* why;
  const char* instead;
};

// The numbers that NeMo's recipe resolves.
struct Resolved {
  std::int64_t seed, max_steps;
  std::optional<std::int64_t> num_epochs;
  double lr, weight_decay, eps;
  StateDtype state;
  LrDecay decay;
  std::int64_t warmup;
  double init_lr, min_lr, max_norm;
  std::int64_t seq_len;
};

struct File {
  const char* name;
  std::string text;
  Resolved resolved;
  std::vector<Stop> stops;
};

constexpr const char* megatron = "Megatron's indexed files cannot be read yet";

constexpr const char* deepseek_v3 = R"(recipe:
  _target_: nemo_automodel.recipes.llm.train_ft.TrainFinetuneRecipeForNextTokenPrediction
step_scheduler:
  global_batch_size: 512
  local_batch_size: 8
  ckpt_every_steps: 500
  val_every_steps: 100
  num_epochs: 1
  max_steps: 9500
dist_env:
  backend: nccl
  timeout_minutes: 10
rng:
  _target_: nemo_automodel.components.training.rng.StatefulRNG
  seed: 1111
  ranked: true
model:
  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_config
  config:
    _target_: transformers.AutoConfig.from_pretrained
    pretrained_model_name_or_path: deepseek-ai/DeepSeek-V3
checkpoint:
  enabled: true
  checkpoint_dir: checkpoints/
  model_save_format: torch_save
  save_consolidated: false
distributed:
  strategy: fsdp2
  tp_size: 1
  cp_size: 1
  pp_size: 8
  dp_size: 16
  ep_size: 16
  pipeline:
    pp_microbatch_size: 1
    pp_schedule: interleaved1f1b
    scale_grads_in_schedule: False
    round_virtual_stages_to_pp_multiple: down
    patch_inner_model: False
    patch_causal_lm_model: False
    layers_per_stage: 2
  moe:
loss_fn:
  _target_: nemo_automodel.components.loss.linear_ce.FusedLinearCrossEntropy
dataset:
  _target_: nemo_automodel.components.datasets.llm.megatron_dataset.MegatronPretraining
  seq_length: 1024
dataloader:
  _target_: torchdata.stateful_dataloader.StatefulDataLoader
  collate_fn: torch.utils.data.default_collate
  dataloader_type: "single"
optimizer:
  _target_: torch.optim.AdamW
  betas: [0.9, 0.95]
  eps: 1e-5
  lr: 4.2e-4
  weight_decay: 0.1
lr_scheduler:
  lr_decay_style: cosine
  lr_warmup_steps: 500
  min_lr: 0.0
)";

// Of 2025: no recipe, sections of Python objects.
constexpr const char* moonlight = R"(step_scheduler:
  global_batch_size: 512
  local_batch_size: 4
  ckpt_every_steps: 1000
  val_every_steps: 100
  num_epochs: 1
  max_steps: 57205
dist_env:
  backend: nccl
  timeout_minutes: 10
rng:
  _target_: nemo_automodel.components.training.rng.StatefulRNG
  seed: 1111
  ranked: true
parallelizer:
  _target_: nemo_automodel.components.moe.parallelizer.parallelize_model
  activation_checkpointing: false
model:
  _target_: nemo_automodel.components.models.deepseek_v3.model.DeepseekV3ForCausalLM.from_config
  pretrained_model_name_or_path: models/Moonlight-16B-A3B
  trust_remote_code: true
  is_meta_device: true
  backend:
    _target_: nemo_automodel.components.moe.utils.BackendConfig
    attn: te
    linear: te
    rms_norm: te
    enable_deepep: true
    fake_balanced_gate: false
    enable_hf_state_dict_adapter: true
checkpoint:
  enabled: true
  checkpoint_dir: checkpoints/moonlight_dclm/
  model_save_format: safetensors
  save_consolidated: true
  load_base_model: false
distributed:
  _target_: nemo_automodel.components.distributed.fsdp2.FSDP2Manager
  tp_size: 1
  cp_size: 1
  pp_size: 1
  dp_replicate_size: 1
  dp_size: 8
  ep_size: 8
loss_fn:
  _target_: nemo_automodel.components.loss.linear_ce.FusedLinearCrossEntropy
dataset:
  _target_: nemo_automodel.components.datasets.llm.megatron_dataset.MegatronPretraining
  seq_length: 2048
optimizer:
  _target_: torch.optim.AdamW
  betas: [0.9, 0.95]
  eps: 1e-8
  lr: 3e-3
  weight_decay: 0.033
lr_scheduler:
  lr_decay_style: cosine
  lr_warmup_steps: 5000
  min_lr: 0.0
wandb:
  project: adil-workspace
)";

constexpr const char* llama_70b = R"(recipe: TrainFinetuneRecipeForNextTokenPrediction
step_scheduler:
  global_batch_size: 128
  local_batch_size: 4
  ckpt_every_steps: 2000
  num_epochs: 1
  max_steps: 60
dist_env:
  backend: nccl
  timeout_minutes: 1
model:
  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained
  pretrained_model_name_or_path: meta-llama/Llama-3.1-70B
  torch_dtype: float32
  trust_remote_code: True
checkpoint:
  enabled: False
  checkpoint_dir: checkpoints/
  model_save_format: torch_save
  save_consolidated: False
dataset:
  _target_: nemo_automodel.components.datasets.llm.squad.make_squad_dataset
  seq_len: 4096
dataloader:
  _target_: torchdata.stateful_dataloader.StatefulDataLoader
  shuffle: false
  collate_fn: nemo_automodel.components.datasets.utils.default_collater
loss_fn:
  _target_: nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy
optimizer:
  _target_: torch.optim.AdamW
  lr: 2.0e-5
  betas: [0.9, 0.95]
  weight_decay: 0.1
distributed:
  strategy: fsdp2
  dp_size: none
  tp_size: 4
  cp_size: 1
  pp_size: 4
  sequence_parallel: false
  activation_checkpointing: true
  mp_policy:
    _target_: torch.distributed.fsdp.MixedPrecisionPolicy
    param_dtype: bfloat16
    reduce_dtype: float32
    output_dtype: bfloat16
    cast_forward_inputs: true
  pipeline:
    pp_schedule: interleaved1f1b
    pp_microbatch_size: 1
    layers_per_stage: 4
    scale_grads_in_schedule: false
    round_virtual_stages_to_pp_multiple: up
    dtype: bf16
packed_sequence:
  packed_sequence_size: 4096
  split_across_pack: False
lr_scheduler:
  lr_decay_style: cosine
  min_lr: 1.0e-6
  lr_warmup_steps: 15
)";

// What the two files of Qwen3 8B share.
constexpr const char* qwen3_8b_rest = R"(dist_env:
  backend: nccl
  timeout_minutes: 30
model:
  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_config
  config:
    _target_: transformers.Qwen3Config
    architectures: [Qwen3ForCausalLM]
    vocab_size: 151936
    hidden_size: 4096
    intermediate_size: 12288
    num_hidden_layers: 36
    num_attention_heads: 32
    num_key_value_heads: 8
    head_dim: 128
    max_position_embeddings: 40960
    max_window_layers: 36
    hidden_act: silu
    rms_norm_eps: 1.0e-6
    initializer_range: 0.02
    rope_theta: 1000000.0
    rope_scaling: null
    sliding_window: null
    use_sliding_window: false
    attention_bias: false
    attention_dropout: 0.0
    tie_word_embeddings: false
    bos_token_id: 151643
    eos_token_id: 151645
    use_cache: false
  torch_dtype: bfloat16
  load_base_model: false
  force_hf: false
  use_liger_kernel: false
  attn_implementation: sdpa
  backend:
    _target_: nemo_automodel.components.models.common.BackendConfig
    attn: sdpa
    linear: torch
    rms_norm: torch_fp32
    rope_fusion: false
    enable_hf_state_dict_adapter: true
    enable_fsdp_optimizations: true
distributed:
  strategy: fsdp2
  dp_size: none
  tp_size: 2
  cp_size: 1
  pp_size: 1
  sequence_parallel: false
  activation_checkpointing: true
  mp_policy:
    _target_: torch.distributed.fsdp.MixedPrecisionPolicy
    param_dtype: bfloat16
    reduce_dtype: float32
loss_fn:
  _target_: nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy
clip_grad_norm:
  max_norm: 1.0
optimizer:
  _target_: transformer_engine.pytorch.optimizers.fused_adam.FusedAdam
  lr: 3.0e-4
  betas: [0.9, 0.95]
  eps: 1.0e-8
  weight_decay: 0.1
  adam_w_mode: true
  bias_correction: true
  master_weights: true
  store_param_remainders: true
  exp_avg_dtype: torch.float32
  exp_avg_sq_dtype: torch.float32
ci:
  recipe_owner: akoumpa
  nodes: 1
  time: "00:20:00"
)";

constexpr const char* qwen3_8b_head = R"(recipe: TrainFinetuneRecipeForNextTokenPrediction
seed: 1234
step_scheduler:
  global_batch_size: 8
  local_batch_size: 1
  max_steps: 10
  val_every_steps: 5
  ckpt_every_steps: 10
checkpoint:
  enabled: false
dataset:
  _target_: nemo_automodel.components.datasets.llm.mock_pretraining.MockPretrainingDatasetConfig
  tokenizer: null
  vocab_size: 151936
  eod_token_id: 151645
  seq_length: 2048
  num_samples: 80
  split: train
validation_dataset:
  _target_: nemo_automodel.components.datasets.llm.mock_pretraining.MockPretrainingDatasetConfig
  tokenizer: null
  vocab_size: 151936
  eod_token_id: 151645
  seq_length: 2048
  num_samples: 8
  split: validation
lr_scheduler:
  lr_decay_style: cosine
  lr_warmup_steps: 2
  init_lr: 0.0
  min_lr: 3.0e-5
)";

constexpr const char* qwen3_8b_fineweb_head = R"(recipe: TrainFinetuneRecipeForNextTokenPrediction
seed: 1234
step_scheduler:
  global_batch_size: 8
  local_batch_size: 1
  num_epochs: null
  max_steps: 100000
  val_every_steps: 1000
  ckpt_every_steps: 10000
  save_checkpoint_every_epoch: false
  log_remote_every_steps: 10
checkpoint:
  enabled: true
  checkpoint_dir: checkpoints/qwen3_8b_fineweb_edu
  model_save_format: torch_save
  save_consolidated: false
  restore_from: LATEST
  is_async: true
  wait_for_staging: true
  max_recent_checkpoints: 2
dataset:
  _target_: nemo_automodel.components.datasets.llm.megatron_dataset.MegatronPretrainingConfig
  seq_length: 2048
  seed: 1234
lr_scheduler:
  lr_decay_style: cosine
  lr_warmup_steps: 2000
  lr_decay_steps: 100000
  init_lr: 0.0
  min_lr: 3.0e-5
)";

constexpr const char* qwen3_moe = R"(recipe: TrainFinetuneRecipeForNextTokenPrediction
seed: 1234
step_scheduler:
  global_batch_size: 1024
  local_batch_size: 1
  ckpt_every_steps: 50
  save_checkpoint_every_epoch: false
  val_every_steps: null
  log_remote_every_steps: 1
  loss_average_window_steps: 10
  gc_every_steps: 100
  num_epochs: 1
  max_steps: 100
dist_env:
  backend: nccl
  timeout_minutes: 30
model:
  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_config
  torch_dtype: bfloat16
  output_hidden_states: true
  config:
    _target_: transformers.AutoConfig.from_pretrained
    pretrained_model_name_or_path: Qwen/Qwen3-30B-A3B
    revision: ad44e777bcd18fa416d9da3bd8f70d33ebb85d39
  trust_remote_code: true
  backend:
    _target_: nemo_automodel.components.models.common.BackendConfig
    attn: te
    linear: te
    rms_norm: te
    rope_fusion: true
    experts: te
    dispatcher: hybridep
    fake_balanced_gate: false
    enable_hf_state_dict_adapter: true
    enable_fsdp_optimizations: true
checkpoint:
  enabled: true
  checkpoint_dir: output/checkpoints
  model_save_format: torch_save
  save_consolidated: false
  is_async: false
distributed:
  strategy: fsdp2
  tp_size: 1
  cp_size: 1
  pp_size: 1
  ep_size: 16
  sequence_parallel: false
  activation_checkpointing: false
  moe:
    reshard_after_forward: false
loss_fn:
  _target_: nemo_automodel.components.loss.linear_ce.FusedLinearCrossEntropy
dataset:
  _target_: nemo_automodel.components.datasets.llm.megatron_dataset.MegatronPretraining
  seq_length: 4096
  seed: 1234
dataloader:
  _target_: torchdata.stateful_dataloader.StatefulDataLoader
  num_workers: 8
optimizer:
  _target_: nemo_automodel.components.optim.optimizer.FusedAdamConfig
  lr: 0.0003
  weight_decay: 0.1
  betas: [0.9, 0.95]
  eps: 1.0e-8
  adam_w_mode: true
  bias_correction: true
  master_weights: true
  master_weight_dtype: float32
lr_scheduler:
  lr_warmup_steps: 40
  lr_decay_steps: 100
  lr_decay_style: cosine
  init_lr: 0.0
  max_lr: 0.0003
  min_lr: 0.00003
  start_wd: 0.033
  end_wd: 0.033
  wd_incr_steps: 100
  wd_incr_style: constant
  use_checkpoint_opt_param_scheduler: false
  override_opt_param_scheduler: true
clip_grad_norm:
  max_norm: 1.0
)";

const std::string qwen3_8b = std::string(qwen3_8b_head) + qwen3_8b_rest;
const std::string qwen3_8b_fineweb = std::string(qwen3_8b_fineweb_head) + qwen3_8b_rest;

std::vector<File> files() {
  const Stop megatron_data{"nemo_automodel.components.datasets.llm.megatron_dataset.MegatronPretraining\n", megatron,
                           "mock\n"};
  const Stop megatron_config{"nemo_automodel.components.datasets.llm.megatron_dataset.MegatronPretrainingConfig\n",
                             megatron, "mock\n"};
  constexpr const char* no_tp = "tensor and context parallelism are not available";
  return {
      {"deepseekv3_pretrain",
       deepseek_v3,
       {1111, 9500, 1, 4.2e-4, 0.1, 1e-5, StateDtype::weights, LrDecay::cosine, 500, 4.2e-5, 0, 1, 1024},
       {megatron_data}},
      {"megatron_pretrain_moonlight_16b_te_slurm",
       moonlight,
       {1111, 57205, 1, 3e-3, 0.033, 1e-8, StateDtype::weights, LrDecay::cosine, 5000, 3e-4, 0, 1, 2048},
       {megatron_data,
        // A directory of that person's.
        {"models/Moonlight-16B-A3B", "models/Moonlight-16B-A3B", "deepseek-ai/DeepSeek-V3"}}},
      {"llama3_70b_pretrain",
       llama_70b,
       {42, 60, 1, 2e-5, 0.1, 1e-8, StateDtype::fp32, LrDecay::cosine, 15, 2e-6, 1e-6, 1, 4096},
       {{"nemo_automodel.components.datasets.llm.squad.make_squad_dataset\n", "data of fine-tuning", "mock\n"},
        {"packed_sequence_size: 4096", "expected integer from 0 to 0", "packed_sequence_size: 0"},
        {"tp_size: 4", no_tp, "tp_size: 1"}}},
      {"qwen3_8b_pretrain",
       qwen3_8b,
       {1234, 10, std::nullopt, 3e-4, 0.1, 1e-8, StateDtype::fp32, LrDecay::cosine, 2, 0, 3e-5, 1, 2048},
       {{"tp_size: 2", no_tp, "tp_size: 1"}}},
      {"qwen3_8b_fineweb_edu_pretrain",
       qwen3_8b_fineweb,
       {1234, 100000, std::nullopt, 3e-4, 0.1, 1e-8, StateDtype::fp32, LrDecay::cosine, 2000, 0, 3e-5, 1, 2048},
       {megatron_config, {"tp_size: 2", no_tp, "tp_size: 1"}}},
      {"qwen3_moe_30b_a3b_rp2_verification",
       qwen3_moe,
       {1234, 100, 1, 3e-4, 0.1, 1e-8, StateDtype::fp32, LrDecay::cosine, 40, 0, 3e-5, 1, 4096},
       {megatron_data}},
  };
}

std::string replaced(std::string text, const Stop& stop) {
  const std::size_t at = text.find(stop.written);
  EXPECT_NE(at, std::string::npos) << stop.written;
  if (at != std::string::npos) text.replace(at, std::string(stop.written).size(), stop.instead);
  return text;
}

RunSpec resolved(const Config& config) {
  return resolve(config, ranks_of(config), Purpose::plan);
}

// Reading and resolving stop at each of the file's stops in turn, and at nothing else.
TEST(NemoPretrain, StopsAreNamedWithTheReason) {
  for (const File& file : files()) {
    SCOPED_TRACE(file.name);
    std::string text = file.text;
    for (const Stop& stop : file.stops) {
      const std::string error = error_of([&] { resolved(parse(text, "my.yaml")); });
      EXPECT_NE(error.find(stop.why), std::string::npos) << error;
      text = replaced(text, stop);
    }
    EXPECT_NO_THROW(resolved(parse(text, "my.yaml")));
  }
}

TEST(NemoPretrain, ResolvesAsNemoDoes) {
  for (const File& file : files()) {
    SCOPED_TRACE(file.name);
    std::string text = file.text;
    for (const Stop& stop : file.stops) text = replaced(text, stop);
    const Config config = parse(text, "my.yaml");
    const Resolved& want = file.resolved;
    EXPECT_EQ(config.program, Program::nemo);
    EXPECT_EQ(config.recipe, Recipe::train);
    EXPECT_EQ(config.seed, want.seed);
    EXPECT_EQ(config.step_scheduler.max_steps, want.max_steps);
    EXPECT_EQ(config.step_scheduler.num_epochs, want.num_epochs);
    EXPECT_EQ(config.optimizer.lr, want.lr);
    EXPECT_EQ(config.optimizer.betas, (std::vector{0.9, 0.95}));
    EXPECT_EQ(config.optimizer.weight_decay, want.weight_decay);
    EXPECT_EQ(config.optimizer.eps, want.eps);
    EXPECT_EQ(config.optimizer.state_dtype, want.state);
    EXPECT_EQ(config.optimizer.decay_parameters, DecayedParams::all);
    EXPECT_EQ(config.optimizer.target, OptimizerKind::adamw);
    EXPECT_EQ(config.lr_scheduler.lr_decay_style, want.decay);
    EXPECT_EQ(warmup_steps(config, want.max_steps), want.warmup);
    EXPECT_DOUBLE_EQ(config.lr_scheduler.init_lr.value_or(-1), want.init_lr);
    EXPECT_EQ(config.lr_scheduler.min_lr, want.min_lr);
    EXPECT_EQ(config.clip_grad_norm.max_norm, want.max_norm);
    EXPECT_EQ(config.dataset.seq_len, want.seq_len);
    EXPECT_TRUE(config.model.aux_loss_of_config);
    // The first step has the rate that warm-up begins with, the last of warm-up the peak.
    const RunSpec spec = resolved(config);
    EXPECT_DOUBLE_EQ(spec.lr.at(0), want.init_lr);
    EXPECT_DOUBLE_EQ(spec.lr.at(want.warmup), want.lr);
    EXPECT_DOUBLE_EQ(spec.lr.at(spec.steps), want.min_lr);
    EXPECT_EQ(spec.weight_decay.at(0), config.lr_scheduler.start_wd.value_or(want.weight_decay));
    EXPECT_EQ(spec.max_norm, want.max_norm);
  }
}

TEST(NemoPretrain, AClassOfTransformersNamesTheFamily) {
  const Config config = parse(qwen3_8b, "my.yaml");
  EXPECT_EQ(config.model.config.overrides.find("model_type")->json, "\"qwen3\"");
  EXPECT_EQ(config.model.config.overrides.find("hidden_size")->json, "4096");
  EXPECT_EQ(config.dataset.num_samples, 80);
  EXPECT_EQ(config.validation_dataset.num_samples, 8);
  const Config weights = parse(replaced(replaced(llama_70b, files()[2].stops[0]), files()[2].stops[1]), "my.yaml");
  EXPECT_EQ(weights.model.load_weights, true);
  EXPECT_EQ(weights.model.config.pretrained_model_name_or_path, "meta-llama/Llama-3.1-70B");
}

}  // namespace
}  // namespace sluice::config
