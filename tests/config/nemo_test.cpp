// The key set of NeMo AutoModel's published benchmark files for the five models, written out again with each row's
// values: such files run unchanged.
#include <fmt/format.h>

#include <filesystem>

#include "config/support.h"

namespace sluice::config {
namespace {

struct Row {
  const char* name;
  const char* hub_id;
  int warmup, nodes, gbs, lbs, max_steps;
  int pp, ep, microbatch, layers_per_stage;
  const char* checkpointing;  // with its line break, may be absent
  const char* moe;            // likewise
  const char* attn;
  const char* experts;
  const char* dispatcher;
  const char* backend_more;
  const char* trust;
};

const Row rows[] = {
    {"R1", "deepseek-ai/DeepSeek-V3", 2, 128, 4096, 4, 12, 4, 64, 1, 4, "",
     "  moe:\n    reshard_after_forward: false\n    wrap_outer_model: false\n", "te", "torch_mm", "hybridep",
     "    enable_hf_state_dict_adapter: false\n    enable_fsdp_optimizations: true\n", "  trust_remote_code: true\n"},
    {"R2", "deepseek-ai/DeepSeek-V3", 2, 32, 256, 4, 12, 4, 64, 1, 2, "  activation_checkpointing: true\n",
     "  moe:\n    experts_reshard_after_forward: true\n    reshard_after_forward: false\n    wrap_outer_model: false\n",
     "te", "torch_mm", "hybridep",
     "    dispatcher_num_sms: 20\n    enable_hf_state_dict_adapter: false\n    enable_fsdp_optimizations: true\n",
     "  trust_remote_code: true\n"},
    {"R3", "moonshotai/Kimi-K2-Base", 10, 32, 512, 8, 30, 8, 32, 1, 2, "  activation_checkpointing: true\n", "", "te",
     "gmm", "deepep", "    enable_hf_state_dict_adapter: false\n", "  trust_remote_code: true\n"},
    {"R4", "Qwen/Qwen3-30B-A3B", 10, 1, 512, 4, 30, 1, 8, 2, 2, "  activation_checkpointing: true\n",
     "  moe:\n    reshard_after_forward: false\n    ignore_router_for_ac: false\n", "te", "gmm", "deepep",
     "    enable_hf_state_dict_adapter: true\n    enable_fsdp_optimizations: true\n", "  trust_remote_code: true\n"},
    {"R5", "openai/gpt-oss-20b", 10, 1, 256, 2, 30, 1, 8, 2, 2, "", "  moe:\n", "flex", "gmm", "deepep",
     "    enable_hf_state_dict_adapter: false\n", "  trust_remote_code: true\n"},
    {"R6", "openai/gpt-oss-120b", 10, 8, 512, 1, 30, 1, 64, 2, 2, "  activation_checkpointing: false\n",
     "  moe:\n    reshard_after_forward: false\n", "te", "torch_mm", "hybridep",
     "    dispatcher_num_sms: 64\n    enable_hf_state_dict_adapter: false\n    enable_fsdp_optimizations: true\n", ""},
};

std::string file_of(const Row& row) {
  std::string text = fmt::format(
      "recipe: BenchmarkingRecipeForNextTokenPrediction\nseed: 1234\n"
      "benchmark:\n  warmup_steps: {}\n  peak_tflops: 989\n  nsys_start: -1\n  nsys_end: -1\n  nsys_ranks: []\n"
      "  num_nodes: {}\n"
      "step_scheduler:\n  gc_every_steps: 10\n  global_batch_size: {}\n  local_batch_size: {}\n"
      "  ckpt_every_steps: 1000\n  val_every_steps: 1000\n  num_epochs: 1\n  max_steps: {}\n",
      row.warmup, row.nodes, row.gbs, row.lbs, row.max_steps);
  text += fmt::format(
      "distributed:\n  strategy: fsdp2\n  tp_size: 1\n  cp_size: 1\n  pp_size: {}\n  ep_size: {}\n"
      "  sequence_parallel: false\n{}"
      "  pipeline:\n    pp_schedule: interleaved1f1b\n    pp_microbatch_size: {}\n    layers_per_stage: {}\n"
      "    round_virtual_stages_to_pp_multiple: down\n    scale_grads_in_schedule: false\n"
      "    patch_inner_model: false\n    patch_causal_lm_model: false\n{}"
      "dist_env:\n  backend: nccl\n  timeout_minutes: 10\n",
      row.pp, row.ep, row.checkpointing, row.microbatch, row.layers_per_stage, row.moe);
  text += fmt::format(
      "model:\n  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_config\n"
      "  config:\n    _target_: transformers.AutoConfig.from_pretrained\n    pretrained_model_name_or_path: {}\n{}"
      "  backend:\n    _target_: nemo_automodel.components.models.common.BackendConfig\n    attn: {}\n    linear: te\n"
      "    rms_norm: te\n    rope_fusion: true\n    experts: {}\n    dispatcher: {}\n    fake_balanced_gate: true\n{}",
      row.hub_id, row.trust, row.attn, row.experts, row.dispatcher, row.backend_more);
  return text +
         "checkpoint:\n  enabled: false\n"
         "loss_fn:\n  _target_: nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy\n  fp32_upcast: false\n"
         "dataset:\n  _target_: nemo_automodel.components.datasets.llm.mock_iterable_dataset.MockIterableDataset\n"
         "  seq_len: 4096\n  num_samples: 100000\n"
         "dataloader:\n  batch_size: null\n  _target_: torch.utils.data.DataLoader\n  num_workers: 0\n"
         "optimizer:\n  _target_: torch.optim.Adam\n  betas:\n  - 0.9\n  - 0.999\n  eps: 1e-8\n  lr: 0.0001\n"
         "  weight_decay: 0\n  foreach: false\n"
         "ci:\n  time: \"01:00:00\"\n  nodes: 128\n  env_vars:\n    HF_HUB_OFFLINE: \"0\"\n";
}

TEST(Nemo, ItsBenchmarkFilesAreReadUnchanged) {
  int num_rows = 0;
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    Config config;
    ASSERT_NO_THROW(config = parse(file_of(row), "nemo.yaml"));
    ASSERT_NO_THROW(validate(config));
    EXPECT_EQ(config.recipe, Recipe::benchmark);
    EXPECT_EQ(config.step_scheduler.global_batch_size, row.gbs);
    EXPECT_EQ(config.distributed.ep_size, row.ep);
    EXPECT_EQ(config.distributed.pipeline.pp_schedule, Schedule::interleaved);
    EXPECT_EQ(config.model.config.pretrained_model_name_or_path, row.hub_id);
    EXPECT_TRUE(config.model.config.overrides.fields.empty());
    EXPECT_EQ(config.balance(), Balance::published);
    EXPECT_EQ(config.optimizer.target, OptimizerKind::adam);
    EXPECT_EQ(config.dataset.target, DatasetKind::mock);
    EXPECT_EQ(config.recompute().full, std::string(row.checkpointing).find("true") != std::string::npos);
    EXPECT_TRUE(config.validation_dataset.target == DatasetKind::none);
    ++num_rows;
  }
  EXPECT_EQ(num_rows, 6);
}

TEST(Nemo, WhatHasNoEffectIsListedWithTheReason) {
  const Config config = parse(file_of(rows[3]), "nemo.yaml");
  std::string listed;
  for (const IgnoredKey& ignored : config.ignored) {
    listed += ignored.key + " ";
    EXPECT_FALSE(ignored.reason.empty()) << ignored.key;
  }
  EXPECT_EQ(listed,
            "benchmark.nsys_start benchmark.nsys_end benchmark.nsys_ranks benchmark.num_nodes "
            "step_scheduler.gc_every_steps distributed.pipeline.scale_grads_in_schedule "
            "distributed.pipeline.patch_inner_model distributed.pipeline.patch_causal_lm_model "
            "distributed.moe.ignore_router_for_ac model.trust_remote_code model.backend._target_ "
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
  EXPECT_GE(num_files, 2);
}

// The published table: GBS, MBS, LBS, GA, PP, EP, VP, GPUs.
struct TableRow {
  const char* file;
  const char* row;
  int64_t gbs, mbs, lbs, ga, pp, ep, vp, gpus;
  bool recomputes;
};

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
    EXPECT_NEAR(static_cast<double>(row.gbs * 4096) / (*published.step_time_s * static_cast<double>(row.gpus)),
                *published.tokens_per_s_per_gpu, 1e-3 * *published.tokens_per_s_per_gpu);
  }
}

}  // namespace
}  // namespace sluice::config
