// The sections of a configuration that say which model, and in which kernels of NeMo's. See config.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/types.h"

namespace sluice::config {

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
  std::optional<BalanceOver> aux_loss_over;
  double router_z_loss_coef = 0;
  double mtp_loss_weight = 0;
  std::optional<double> gate_bias_update_factor;
  std::optional<bool> load_weights;
  std::string torch_dtype = "auto";

  template <class V>
  void fields(V& v) {
    v("_target_", target, "how weights begin: from_config draws them at random, unless load_weights says otherwise");
    v("load_weights", load_weights,
      "[sluice] begin with the directory's safetensors; null: if there are any and the recipe is train");
    v("aux_loss_coef", aux_loss_coef, "[sluice] weight of the balance loss; null: the family's", non_negative);
    v("aux_loss_of_config", aux_loss_of_config,
      "[sluice] without aux_loss_coef: config.json's router_aux_loss_coef, as in NeMo");
    v("aux_loss_over", aux_loss_over,
      "[sluice] tokens whose slots that loss counts; null: a sigmoid router's sequence, else micro_batch");
    v("router_z_loss_coef", router_z_loss_coef,
      "[sluice] weight of the mean of (log sum exp router logits)^2, as in ST-MoE; 0: off", non_negative);
    v("gate_bias_update_factor", gate_bias_update_factor,
      "[sluice] step of a sigmoid router's selection bias, each optimizer step; null: 1e-3", non_negative);
    v("mtp_loss_weight", mtp_loss_weight,
      "[sluice] weight of the loss of DeepSeek V3's extra layer; 0: the layer is left out", non_negative);
    v("torch_dtype", torch_dtype,
      "of NeMo's weights: bf16 says that runtime.dtype is bf16, float32 that optimizer.state_dtype is fp32",
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

}  // namespace sluice::config
