// NeMo AutoModel's benchmark files for the five models, their key sets written out again with each file's values: the
// published rows', the variants beside them, and the layout the files had when the rows were measured. They run
// unchanged.
#include <fmt/format.h>

#include <array>
#include <filesystem>

#include "config/support.h"

namespace sluice::config {
namespace {

constexpr const char* deepseek = "deepseek-ai/DeepSeek-V3";
constexpr const char* kimi = "moonshotai/Kimi-K2-Base";
constexpr const char* qwen = "Qwen/Qwen3-30B-A3B";
constexpr const char* oss20 = "openai/gpt-oss-20b";
constexpr const char* oss120 = "openai/gpt-oss-120b";

// Kernels: attn, linear, rms_norm, experts, dispatcher.
using Kernels = std::array<const char*, 5>;
constexpr Kernels te_deepep{"te", "te", "te", "gmm", "deepep"};
constexpr Kernels te_hybridep{"te", "te", "te", "torch_mm", "hybridep"};
constexpr Kernels te_experts{"te", "te", "te", "te", "hybridep"};
constexpr Kernels all_torch{"sdpa", "torch", "torch", "torch", "torch"};

// Lines of a section, each with its key and value.
constexpr const char* ac = "  activation_checkpointing: true\n";
constexpr const char* no_ac = "  activation_checkpointing: false\n";
constexpr const char* keep = "  moe:\n    reshard_after_forward: false\n";
constexpr const char* keep_unwrapped = "  moe:\n    reshard_after_forward: false\n    wrap_outer_model: false\n";
constexpr const char* fsdp = "    enable_fsdp_optimizations: true\n";
constexpr const char* mxfp8 = "    enable_fsdp_optimizations: true\n    te_fp8:\n      recipe: mxfp8\n";
constexpr const char* compiled = "    compile_attn: true\n    enable_fsdp_optimizations: true\n";
constexpr const char* compiled_mla = "    compile_mla: true\n    enable_fsdp_optimizations: true\n";
constexpr const char* compiled_mxfp8 = "    compile_attn: true\n    te_fp8:\n      recipe: mxfp8\n";

struct File {
  const char* name;
  const char* hub_id;
  int warmup, peak, nodes, gbs, lbs, max_steps;
  int pp, ep, microbatch, layers_per_stage;  // 0: without a pipeline section
  std::string distributed;                   // more of it
  Kernels kernels;
  std::string backend;  // more of it
  std::string unavailable = {};
  bool rope_fusion = true;
  bool trust = true;
  const char* auto_config = "transformers.AutoConfig.from_pretrained";
};

const char* const nemo_config = "nemo_automodel._transformers.auto_config.NeMoAutoConfig.from_pretrained";

std::vector<File> files() {
  const std::string rest = "    enable_hf_state_dict_adapter: false\n";
  const std::string sms = "    dispatcher_num_sms: 64\n";
  const std::string fp8_of_te = "model.backend.te_fp8.recipe mxfp8 ";
  const Kernels compiled_torch_mm{"sdpa", "torch", "torch", "torch_mm", "hybridep"};
  const Kernels compiled_gmm{"sdpa", "torch", "torch", "gmm", "hybridep"};
  const Kernels compiled_te{"sdpa", "torch", "torch", "te", "hybridep"};
  return {
      {"R1", deepseek, 2, 989, 128, 4096, 4, 12, 4, 64, 1, 4, keep_unwrapped, te_hybridep, rest + fsdp},
      {"R2", deepseek, 2, 989, 32, 256, 4, 12, 4, 64, 1, 2,
       std::string(ac) + keep_unwrapped + "    experts_reshard_after_forward: true\n", te_hybridep,
       rest + fsdp + "    dispatcher_num_sms: 20\n"},
      {"R3", kimi, 10, 989, 32, 512, 8, 30, 8, 32, 1, 2, ac, te_deepep, rest},
      {"R4", qwen, 10, 989, 1, 512, 4, 30, 1, 8, 2, 2, std::string(ac) + keep + "    ignore_router_for_ac: false\n",
       te_deepep, "    enable_hf_state_dict_adapter: true\n    enable_fsdp_optimizations: true\n"},
      {"R5", oss20, 10, 989, 1, 256, 2, 30, 1, 8, 2, 2, "  moe:\n", {"flex", "te", "te", "gmm", "deepep"}, rest},
      {"R6", oss120, 10, 989, 8, 512, 1, 30, 1, 64, 2, 2, std::string(no_ac) + keep, te_hybridep, rest + fsdp + sms, "",
       true, false},
      {"deepseek_v3_torch", deepseek, 10, 989, 32, 512, 4, 30, 4, 64, 1, 2, "", all_torch, rest},
      {"deepseek_v3_te_deepep_gb200",
       deepseek,
       10,
       2500,
       16,
       128,
       2,
       30,
       1,
       64,
       0,
       0,
       ac,
       {"te", "te", "te", "gmm", "hybridep"},
       rest + fsdp},
      {"deepseek_v3_te_mxfp8_gb200", deepseek, 10, 5000, 16, 64, 1, 30, 1, 64, 0, 0, ac, te_experts, rest + mxfp8,
       fp8_of_te},
      {"deepseek_v3_sdpa_compile_gb200", deepseek, 10, 2500, 16, 128, 2, 30, 1, 64, 0, 0, ac, compiled_gmm,
       rest + compiled, "", false, true, nemo_config},
      {"deepseek_v3_sdpa_compile_te_gb200", deepseek, 10, 2500, 16, 128, 2, 30, 1, 64, 0, 0, ac, compiled_te,
       rest + compiled, "", false, true, nemo_config},
      {"deepseek_v3_sdpa_compile_mxfp8_gb200", deepseek, 10, 5000, 16, 128, 2, 30, 1, 64, 0, 0, ac, compiled_te,
       rest + compiled_mxfp8, fp8_of_te, false, true, nemo_config},
      {"deepseek_v3_sdpa_compile_torchmm_gb200", deepseek, 10, 2500, 16, 128, 2, 30, 1, 64, 0, 0, ac, compiled_torch_mm,
       rest + compiled_mla, "", false},
      {"qwen3_moe_30b_torch", qwen, 10, 989, 1, 256, 4, 30, 1, 8, 2, 2, ac, all_torch, rest},
      {"qwen3_moe_30b_quack_deepep",
       qwen,
       10,
       989,
       1,
       512,
       4,
       30,
       1,
       8,
       2,
       2,
       ac,
       {"te", "quack", "quack", "torch_mm", "deepep"},
       rest + fsdp,
       "",
       false,
       true,
       nemo_config},
      {"qwen3_moe_30b_te_deepep_gb200", qwen, 10, 2500, 2, 512, 16, 30, 1, 8, 2, 2, ac, te_experts, rest + fsdp},
      {"qwen3_moe_30b_te_bf16_gb200", qwen, 10, 2500, 2, 512, 16, 30, 1, 8, 2, 2, ac, te_experts, rest + fsdp},
      {"qwen3_moe_30b_te_mxfp8_gb200", qwen, 10, 5000, 2, 512, 8, 30, 1, 8, 2, 2, ac, te_experts, rest + mxfp8,
       fp8_of_te},
      {"qwen3_moe_30b_torchmm_gb200", qwen, 10, 2500, 2, 512, 16, 30, 1, 8, 2, 2, ac, te_hybridep, rest + fsdp},
      {"qwen3_moe_30b_torch_mxfp8",
       qwen,
       10,
       2500,
       2,
       512,
       16,
       30,
       1,
       8,
       2,
       2,
       ac,
       {"te", "te", "te", "torch_mm_mxfp8", "hybridep"},
       rest + fsdp,
       "model.backend.experts torch_mm_mxfp8 "},
      {"qwen3_moe_30b_compile_attn_gb200", qwen, 10, 2500, 2, 512, 16, 30, 1, 8, 2, 2, ac, compiled_te, rest + compiled,
       "", false, true, nemo_config},
      {"gptoss_20b_torch",
       oss20,
       10,
       989,
       1,
       256,
       1,
       30,
       1,
       8,
       2,
       2,
       "",
       {"flex", "torch", "torch", "torch", "torch"},
       rest},
      {"gptoss_120b_te_deepep_gb200", oss120, 10, 2500, 8, 1280, 8, 30, 1, 16, 2, 2, std::string(ac) + keep,
       te_hybridep, rest + fsdp + sms, "", true, false},
      {"gptoss_120b_te_mxfp8_gb200", oss120, 10, 5000, 8, 512, 2, 30, 1, 16, 2, 2, std::string(no_ac) + keep,
       te_experts, rest + sms + mxfp8, fp8_of_te, true, false},
  };
}

// What all files end with.
std::string tail_of(const File& file) {
  return fmt::format(
      "checkpoint:\n  enabled: false\n"
      "loss_fn:\n  _target_: nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy\n  fp32_upcast: false\n"
      "dataset:\n  _target_: nemo_automodel.components.datasets.llm.mock_iterable_dataset.MockIterableDataset\n"
      "  seq_len: 4096\n  num_samples: 100000\n"
      "dataloader:\n  batch_size: null\n  _target_: torch.utils.data.DataLoader\n  num_workers: 0\n"
      "optimizer:\n  _target_: torch.optim.Adam\n  betas:\n  - 0.9\n  - 0.999\n  eps: 1e-8\n  lr: 0.0001\n"
      "  weight_decay: 0\n  foreach: false\n"
      "ci:\n  time: \"01:00:00\"\n  nodes: {}\n  cluster_tag: gb200\n  env_vars:\n    HF_HUB_OFFLINE: \"0\"\n",
      file.nodes);
}

std::string pipeline_of(const File& file, const char* indent) {
  return fmt::format(
      "{0}pp_schedule: interleaved1f1b\n{0}pp_microbatch_size: {1}\n{0}layers_per_stage: {2}\n"
      "{0}round_virtual_stages_to_pp_multiple: down\n{0}scale_grads_in_schedule: false\n"
      "{0}patch_inner_model: false\n{0}patch_causal_lm_model: false\n",
      indent, file.microbatch, file.layers_per_stage);
}

std::string scheduler_of(const File& file) {
  return fmt::format(
      "step_scheduler:\n  gc_every_steps: 10\n  global_batch_size: {}\n  local_batch_size: {}\n"
      "  ckpt_every_steps: 1000\n  val_every_steps: 1000\n  num_epochs: 1\n  max_steps: {}\n",
      file.gbs, file.lbs, file.max_steps);
}

// As the files are today.
std::string text_of(const File& file) {
  std::string text = fmt::format(
      "recipe: BenchmarkingRecipeForNextTokenPrediction\nseed: 1234\n"
      "benchmark:\n  warmup_steps: {}\n  peak_tflops: {}\n  nsys_start: -1\n  nsys_end: -1\n  nsys_ranks: []\n"
      "  num_nodes: {}\n{}"
      "distributed:\n  strategy: fsdp2\n  tp_size: 1\n  cp_size: 1\n  pp_size: {}\n  ep_size: {}\n"
      "  sequence_parallel: false\n{}",
      file.warmup, file.peak, file.nodes, scheduler_of(file), file.pp, file.ep, file.distributed);
  if (file.microbatch > 0) text += "  pipeline:\n" + pipeline_of(file, "    ");
  text += fmt::format(
      "dist_env:\n  backend: nccl\n  timeout_minutes: 10\n"
      "model:\n  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_config\n"
      "  config:\n    _target_: {}\n    pretrained_model_name_or_path: {}\n{}"
      "  backend:\n    _target_: nemo_automodel.components.models.common.BackendConfig\n    attn: {}\n    linear: {}\n"
      "    rms_norm: {}\n    rope_fusion: {}\n    experts: {}\n    dispatcher: {}\n    fake_balanced_gate: true\n{}",
      file.auto_config, file.hub_id, file.trust ? "  trust_remote_code: true\n" : "", file.kernels[0], file.kernels[1],
      file.kernels[2], file.rope_fusion, file.kernels[3], file.kernels[4], file.backend);
  return text + tail_of(file);
}

std::string unavailable_of(const Config& config) {
  std::string text;
  for (const Unavailable& each : unavailable(config)) {
    text += each.key + " " + each.value + " ";
    EXPECT_FALSE(each.where.empty());
  }
  return text;
}

TEST(Nemo, ItsBenchmarkFilesAreReadUnchanged) {
  int num_files = 0;
  for (const File& file : files()) {
    SCOPED_TRACE(file.name);
    Config config;
    ASSERT_NO_THROW(config = parse(text_of(file), "nemo.yaml"));
    ASSERT_NO_THROW(validate(config));
    EXPECT_EQ(config.recipe, Recipe::benchmark);
    EXPECT_EQ(config.step_scheduler.global_batch_size, file.gbs);
    EXPECT_EQ(config.distributed.pp_size, file.pp);
    EXPECT_EQ(config.distributed.ep_size, file.ep);
    if (file.microbatch > 0) {
      EXPECT_EQ(config.distributed.pipeline.pp_schedule, ScheduleKind::interleaved);
    }
    EXPECT_EQ(config.model.config.pretrained_model_name_or_path, file.hub_id);
    EXPECT_TRUE(config.model.config.overrides.fields.empty());
    EXPECT_EQ(config.balance(), Balance::published);
    EXPECT_EQ(config.optimizer.target, OptimizerKind::adam);
    EXPECT_EQ(config.optimizer.state_dtype, StateDtype::weights);
    EXPECT_EQ(config.origin("optimizer.state_dtype").kind, Origin::Kind::program);
    EXPECT_EQ(config.optimizer.lr, 1e-4);
    EXPECT_EQ(config.optimizer.weight_decay, 0);
    // What that recipe leaves out of a step.
    EXPECT_FALSE(config.clip_grad_norm.max_norm);
    EXPECT_EQ(config.lr_scheduler.lr_decay_style, LrDecay::constant);
    EXPECT_EQ(config.lr_scheduler.lr_warmup_steps, 0);
    EXPECT_EQ(config.model.gate_bias_update_factor, 0);
    EXPECT_EQ(config.dataset.num_samples, 100000);
    EXPECT_EQ(config.dataset.num_samples_are, SampleUnit::batches);
    EXPECT_FALSE(config.dataset.vocab_size);
    EXPECT_EQ(config.dataset.target, DatasetKind::mock);
    EXPECT_EQ(config.recompute().full, file.distributed.find(ac) != std::string::npos);
    EXPECT_TRUE(config.validation_dataset.target == DatasetKind::none);
    EXPECT_EQ(unavailable_of(config), file.unavailable);
    ++num_files;
  }
  EXPECT_EQ(num_files, 24);
}

// A section for each Python object, no recipe, `enable_deepep`, a class for each model: 2025.
std::string older_text_of(const File& file, const std::string& model_class, const std::string& backend) {
  return fmt::format(
             "seed: 1234\nbenchmark:\n  warmup_steps: 10\n  peak_tflops: 989\n  nsys_start: -1\n  nsys_end: -1\n"
             "  nsys_ranks: []\n{}"
             "distributed:\n  _target_: nemo_automodel.components.distributed.fsdp2.FSDP2Manager\n  tp_size: 1\n"
             "  cp_size: 1\n  pp_size: {}\n  dp_size: none\n  dp_replicate_size: 1\n  ep_size: {}\n"
             "  sequence_parallel: false\n"
             "autopipeline:\n  _target_: nemo_automodel.components.distributed.pipelining.AutoPipeline\n{}"
             "parallelizer:\n  _target_: nemo_automodel.components.moe.parallelizer.parallelize_model\n"
             "  activation_checkpointing: true\n  reshard_after_forward: true\n  wrap_outer_model: false\n"
             "model:\n  _target_: nemo_automodel.components.models.{}.from_config\n"
             "  config:\n    _target_: transformers.AutoConfig.from_pretrained\n    pretrained_model_name_or_path: {}\n"
             "  trust_remote_code: true\n  is_meta_device: true\n"
             "  backend:\n    _target_: nemo_automodel.components.moe.utils.BackendConfig\n    attn: {}\n    linear: "
             "{}\n"
             "    rms_norm: {}\n    fake_balanced_gate: true\n    enable_hf_state_dict_adapter: false\n{}",
             scheduler_of(file), file.pp, file.ep, pipeline_of(file, "  "), model_class, file.hub_id, file.kernels[0],
             file.kernels[1], file.kernels[2], backend) +
         tail_of(file);
}

TEST(Nemo, FilesOfTheTimeOfTheTableAreReadToo) {
  const std::string deepep = "    enable_deepep: true\n    enable_fsdp_optimization: true\n";
  const std::string fp8 = "    te_fp8:\n      _target_: nemo_automodel.components.models.common.utils.TEFp8Config\n";
  struct Older {
    const char* row;
    const char* model_class;
    std::string backend;
    std::string unavailable = {};
  };
  int num_files = 0;
  for (const Older& older :
       {Older{"R2", "deepseek_v3.model.DeepseekV3ForCausalLM", deepep},
        Older{"R4", "qwen3_moe.model.Qwen3MoeForCausalLM", deepep},
        Older{"R5", "gpt_oss.model.GptOssForCausalLM", "    enable_deepep: false\n"},
        Older{"R6", "gpt_oss.model.GptOssForCausalLM", "    enable_fsdp_optimizations: true\n"},
        Older{"R4", "qwen3_moe.model.Qwen3MoeForCausalLM", deepep + fp8 + "      recipe: block\n",
              "model.backend.te_fp8.recipe block "},
        Older{"R4", "qwen3_moe.model.Qwen3MoeForCausalLM", deepep + fp8, "model.backend.te_fp8.recipe current "},
        Older{"R4", "qwen3_moe.model.Qwen3MoeForCausalLM", deepep + "    te_fp8: {}\n",
              "model.backend.te_fp8.recipe current "}}) {
    SCOPED_TRACE(older.model_class);
    for (const File& file : files()) {
      if (file.name != std::string(older.row)) continue;
      Config config;
      ASSERT_NO_THROW(config = parse(older_text_of(file, older.model_class, older.backend), "nemo.yaml"));
      ASSERT_NO_THROW(validate(config));
      EXPECT_EQ(config.recipe, Recipe::benchmark);
      EXPECT_EQ(config.benchmark.warmup_steps, 10);
      EXPECT_EQ(config.distributed.strategy, Strategy::fsdp2);
      EXPECT_TRUE(config.is_set("distributed.strategy"));
      EXPECT_EQ(config.distributed.pp_size, file.pp);
      EXPECT_EQ(config.distributed.pipeline.pp_microbatch_size, file.microbatch);
      EXPECT_EQ(config.distributed.pipeline.layers_per_stage, file.layers_per_stage);
      EXPECT_TRUE(config.recompute().full);
      EXPECT_TRUE(config.distributed.moe.reshard_after_forward);
      EXPECT_EQ(config.optimizer.state_dtype, StateDtype::weights);
      EXPECT_EQ(unavailable_of(config), older.unavailable);
      ++num_files;
    }
  }
  EXPECT_EQ(num_files, 7);
}

TEST(Nemo, TheOldestNames) {
  const Config config = parse(
      "profiling:\n  nsys_start: -1\n  nsys_end: -1\npeak_tflops: 989\nstep_scheduler:\n  warmup_steps: 3\n"
      "dataset:\n  _target_: examples.benchmark.mock_dataset.MockBenchmarkDataset\n"
      "recipe:\n  _target_: nemo_automodel.recipes.llm.benchmark.BenchmarkingRecipeForNextTokenPrediction\n",
      "nemo.yaml");
  EXPECT_EQ(config.benchmark.peak_tflops, 989);
  EXPECT_EQ(config.benchmark.warmup_steps, 3);
  EXPECT_EQ(config.dataset.target, DatasetKind::mock);
  EXPECT_EQ(config.recipe, Recipe::benchmark);
  EXPECT_EQ(config.benchmark.nsys_start, -1);
  EXPECT_EQ(config.benchmark.nsys_end, -1);
}

TEST(Nemo, WhatIsNotThereIsSaid) {
  Config config = parse(text_of(files()[8]), "nemo.yaml");
  ASSERT_EQ(unavailable(config).size(), 1U);
  EXPECT_EQ(unavailable(config)[0].where.substr(0, 10), "nemo.yaml:");
  EXPECT_EQ(unavailable(config)[0].instead, "8-bit products are not available, all have runtime.dtype");
  EXPECT_NE(to_yaml(config).find("# asked for, not available here:\n#   model.backend.te_fp8.recipe mxfp8 (nemo.yaml:"),
            std::string::npos);
  override_with(config, {"--model.backend.te_fp8.recipe", "null"});
  EXPECT_TRUE(unavailable(config).empty());
  override_with(config, {"--fp8", "{enabled: true, recipe_name: rowwise, emulate: false}"});
  EXPECT_EQ(unavailable_of(config), "fp8.enabled rowwise ");
}

// Keys of the section that are sluice's alone do not make a file one of NeMo's.
TEST(Nemo, AFileThatTimesIsABenchmark) {
  EXPECT_EQ(parse("seed: 1\n", "my.yaml").recipe, Recipe::train);
  EXPECT_EQ(parse("benchmark: {balance: router}\n", "my.yaml").recipe, Recipe::train);
  EXPECT_EQ(parse("benchmark: {warmup_steps: 1}\n", "my.yaml").recipe, Recipe::benchmark);
  EXPECT_EQ(parse("benchmark: {warmup_steps: 1}\nrecipe: train\n", "my.yaml").recipe, Recipe::train);
  Config config = parse("seed: 1\n", "my.yaml");
  override_with(config, {"--benchmark.warmup_steps", "1"});
  EXPECT_EQ(config.recipe, Recipe::train);
}

TEST(Nemo, MistakesAreNamed) {
  const auto error_with = [](const std::string& from, const std::string& to) {
    std::string text = text_of(files()[3]);
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return parse_error(text.replace(at, from.size(), to));
  };
  EXPECT_EQ(error_with("torch.optim.Adam", "torch.optim.Adma"),
            "my.yaml:71: optimizer._target_: expected one of AdamW, AdamWConfig, Adam, AdamConfig, FusedAdam, "
            "FusedAdamConfig, fused_adam, got \"torch.optim.Adma\"\n"
            "       did you mean Adam?");
  EXPECT_NE(error_with("masked_ce.MaskedCrossEntropy", "masked_ce.MaskedCrosEntropy").find("did you mean MaskedCross"),
            std::string::npos);
  EXPECT_NE(error_with("nemo_automodel.NeMoAutoModelForCausalLM.from_config",
                       "nemo_automodel.NeMoAutoModelForCausalLM.from_confg")
                .find("did you mean NeMoAutoModelForCausalLM.from_config?"),
            std::string::npos);
  EXPECT_NE(error_with("NeMoAutoModelForCausalLM", "NeMoAutoModelForImageTextToText").find("model._target_: expected"),
            std::string::npos);
  EXPECT_NE(error_with("MockIterableDataset\n", "MockIterableDatasets\n").find("did you mean MockIterableDataset?"),
            std::string::npos);
  EXPECT_EQ(error_with("  ep_size:", "  ep_sise:").substr(0, 49), "my.yaml:23: distributed.ep_sise is not a key\n    ");
  EXPECT_NE(parse_error("autopipeline:\n  pp_scedule: 1f1b\n")
                .find("my.yaml:2: autopipeline.pp_scedule is not a key\n"
                      "       did you mean distributed.pipeline.pp_schedule?"),
            std::string::npos);
  EXPECT_EQ(parse_error("distributed: {_target_: nemo_automodel.MegatronFSDPManager}\n"),
            "my.yaml:1: distributed.strategy: expected one of fsdp2, FSDP2Manager, got "
            "\"nemo_automodel.MegatronFSDPManager\"");
  EXPECT_EQ(parse_error("peak_tflops: 1\nbenchmark:\n  peak_tflops: 2\n"),
            "my.yaml:3: benchmark.peak_tflops is given twice\n       the other is at my.yaml:1");
  EXPECT_EQ(parse_error("seed: 1\npeft:\n  dim: 8\n"),
            "my.yaml:2: peft: sluice trains every weight, not adapters\n"
            "       leave the section out, or set it to null");
  EXPECT_NO_THROW(parse("peft: null\n", "my.yaml"));
  EXPECT_NE(parse_error("model: {backend: {te_fp8: {recipe: mxfp4}}}\n").find("did you mean mxfp8?"),
            std::string::npos);
}

TEST(Nemo, WhatHasNoEffectIsListedWithTheReason) {
  const Config config = parse(text_of(files()[3]), "nemo.yaml");
  std::string listed;
  for (const IgnoredKey& ignored : config.ignored) {
    listed += ignored.key + " ";
    EXPECT_FALSE(ignored.reason.empty()) << ignored.key;
  }
  EXPECT_EQ(listed,
            "benchmark.num_nodes step_scheduler.gc_every_steps distributed.moe.ignore_router_for_ac "
            "distributed.pipeline.scale_grads_in_schedule distributed.pipeline.patch_inner_model "
            "distributed.pipeline.patch_causal_lm_model model.trust_remote_code model.backend._target_ "
            "model.backend.enable_hf_state_dict_adapter model.backend.enable_fsdp_optimizations loss_fn.fp32_upcast "
            "dataloader optimizer.foreach ci ");
}

TEST(Examples, AllAreValid) {
  int num_files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(SLUICE_SOURCE_DIR "/examples")) {
    if (entry.path().extension() != ".yaml") continue;
    SCOPED_TRACE(entry.path().string());
    Config config;
    ASSERT_NO_THROW(config = load(entry.path()));
    EXPECT_NO_THROW(validate(config));
    EXPECT_TRUE(config.ignored.empty());
    ++num_files;
  }
  EXPECT_GE(num_files, 14);
}

// The published table: GBS, MBS, LBS, GA, PP, EP, VP, GPUs.
struct TableRow {
  const char* file;
  const char* row;
  int64_t gbs, mbs, lbs, ga, pp, ep, vp, gpus;
  bool recomputes;
};

// The page's names of the kernels that a file asks for.
std::string kernels_named_by(const Backend& backend) {
  std::string text;
  if (backend.linear == "te" && backend.rms_norm == "te") text = "TE";
  if (backend.dispatcher == "deepep") text += " + DeepEP";
  if (backend.attn == "flex") text += " + FlexAttn";
  return text;
}

TEST(Examples, TheRowsAreTheTables) {
  for (const TableRow& row : {TableRow{"deepseek_v3_1024", "R1", 8192, 1, 8, 4, 4, 64, 8, 1024, true},
                              {"deepseek_v3_256", "R2", 512, 1, 8, 1, 4, 64, 8, 256, true},
                              {"kimi_k2_256", "R3", 512, 1, 8, 2, 8, 32, 4, 256, true},
                              {"qwen3_moe_30b_8", "R4", 512, 4, 4, 16, 1, 8, 0, 8, true},
                              {"gpt_oss_20b_8", "R5", 256, 2, 2, 16, 1, 8, 0, 8, true},
                              {"gpt_oss_120b_64", "R6", 512, 2, 2, 4, 1, 64, 0, 64, false}}) {
    SCOPED_TRACE(row.row);
    const Config config = load(fmt::format("{}/examples/benchmark/configs/{}.yaml", SLUICE_SOURCE_DIR, row.file));
    EXPECT_EQ(config.benchmark.row, row.row);
    const Distributed& d = config.distributed;
    EXPECT_EQ(config.step_scheduler.global_batch_size, row.gbs);
    EXPECT_EQ(config.step_scheduler.local_batch_size, row.lbs);
    EXPECT_EQ(d.pipeline.pp_microbatch_size, row.mbs);
    EXPECT_EQ(d.pp_size, row.pp);
    EXPECT_EQ(d.ep_size, row.ep);
    EXPECT_EQ(d.pipeline.virtual_stages.value_or(0), row.vp);
    EXPECT_EQ(row.gbs, row.lbs * row.ga * row.gpus / row.pp);
    EXPECT_EQ(config.recompute().full, row.recomputes);
    EXPECT_EQ(d.moe.reshard_after_forward, !row.recomputes);
    EXPECT_EQ(config.balance(), Balance::published);
    EXPECT_EQ(config.optimizer.state_dtype, StateDtype::bf16);
    EXPECT_EQ(config.dataset.seq_len, 4096);
    // tokens/s/GPU = GBS x seq / (s x GPUs), as rounded in the table
    const Published& published = config.benchmark.published;
    ASSERT_TRUE(published.step_time_s && published.gpus && published.tokens_per_s_per_gpu);
    EXPECT_EQ(published.gpus, row.gpus);
    EXPECT_EQ(published.kernels, kernels_named_by(config.model.backend));
    EXPECT_NEAR(static_cast<double>(row.gbs * 4096) / (*published.step_time_s * static_cast<double>(row.gpus)),
                *published.tokens_per_s_per_gpu, 1e-3 * *published.tokens_per_s_per_gpu);
  }
}

}  // namespace
}  // namespace sluice::config
