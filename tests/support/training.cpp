#include "support/training.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <utility>

#include "comm/cuda/cuda_mover.h"
#include "data/mock.h"
#include "device/cuda/cuda.h"
#include "emulation/emulated.h"

namespace sluice::test {

namespace {

// Fields beside those that all have.
const std::map<std::string, std::string>& family_fields() {
  static const std::map<std::string, std::string> fields = {{"qwen3_moe", R"(
    norm_topk_prob: true
    num_attention_heads: 4
    num_key_value_heads: 2
    head_dim: 8
    num_experts: 8
    moe_intermediate_size: 16
    rope_theta: 10000.0
)"},
                                                            {"deepseek_v3", R"(
    num_attention_heads: 3
    num_key_value_heads: 3
    q_lora_rank: 12
    kv_lora_rank: 10
    qk_nope_head_dim: 6
    qk_rope_head_dim: 4
    v_head_dim: 8
    intermediate_size: 24
    moe_intermediate_size: 16
    n_routed_experts: 8
    n_shared_experts: 1
    n_group: 4
    topk_group: 2
    first_k_dense_replace: 1
    routed_scaling_factor: 2.5
    rope_theta: 100.0
    rope_scaling: {type: yarn, factor: 4, original_max_position_embeddings: 64, mscale: 1.0, mscale_all_dim: 1.0}
)"},
                                                            {"kimi_k2", R"(
    num_attention_heads: 2
    num_key_value_heads: 2
    q_lora_rank: 8
    kv_lora_rank: 12
    qk_nope_head_dim: 8
    qk_rope_head_dim: 4
    v_head_dim: 6
    intermediate_size: 40
    moe_intermediate_size: 16
    n_routed_experts: 8
    n_shared_experts: 1
    n_group: 1
    topk_group: 1
    first_k_dense_replace: 1
    routed_scaling_factor: 2.827
    rope_theta: 500.0
    rope_scaling: {type: yarn, factor: 4, original_max_position_embeddings: 64, mscale: 1.0, mscale_all_dim: 1.0,
                   beta_fast: 1.0, beta_slow: 1.0}
)"},
                                                            {"gpt_oss", R"(
    num_attention_heads: 4
    num_key_value_heads: 2
    head_dim: 8
    num_local_experts: 8
    intermediate_size: 16
    sliding_window: 5
    swiglu_limit: 0.4
    rope_theta: 100.0
    rope_scaling: {rope_type: yarn, factor: 4, original_max_position_embeddings: 64, truncate: false}
)"}};
  return fields;
}

// Of qwen3_moe: what its class can be beside the published models. The last of four layers alone has experts.
const std::vector<std::string> kMixed = {
    "--model.config.norm_topk_prob=false",
    "--model.config.decoder_sparse_step=2",
    "--model.config.mlp_only_layers=[1]",
    "--model.config.intermediate_size=24",
    "--model.config.attention_bias=true",
    "--model.config.tie_word_embeddings=true",
    "--model.config.rope_scaling={rope_type: llama3, factor: 4, low_freq_factor: 1, high_freq_factor: 4, "
    "original_max_position_embeddings: 16}"};

}  // namespace

std::vector<std::string> tiny_families() {
  std::vector<std::string> families;
  for (const auto& [family, fields] : family_fields()) families.push_back(family);
  return families;
}

Config tiny_config(const std::vector<std::string>& overrides, const std::string& name) {
  constexpr std::string_view kMtp = "_mtp", kMixedLayers = "_mixed";
  const bool mtp = name.ends_with(kMtp), mixed = name.ends_with(kMixedLayers);
  const std::string family = name.substr(0, name.size() - (mtp ? kMtp.size() : mixed ? kMixedLayers.size() : 0));
  Config config = config::parse(
      fmt::format(R"(
seed: 7
step_scheduler: {{global_batch_size: 8, local_batch_size: 1, max_steps: 20}}
model:
  mtp_loss_weight: {}
  config:
    model_type: {}
    vocab_size: 64
    hidden_size: 32
    num_hidden_layers: 4
    num_experts_per_tok: 2
    rms_norm_eps: 1.0e-6
    max_position_embeddings: 64{}{}
dataset: {{_target_: mock, seq_len: 16}}
runtime: {{dtype: f64}}
optimizer: {{_target_: AdamW, lr: 0.003, eps: 1.0e-4, weight_decay: 0.1}}
clip_grad_norm: {{max_norm: 1.0}}
)",
                  mtp ? 0.3 : 0, family, family_fields().at(family), mtp ? "    num_nextn_predict_layers: 1\n" : ""),
      "tiny");
  if (mixed) config::apply_overrides(config, kMixed);
  config::apply_overrides(config, overrides);
  return config;
}

namespace {

void collect(Trainer& trainer, Training& into) {
  for (FlatGroup* group : trainer.stage().groups()) {
    for (const FlatGroup::Piece& piece : group->pieces()) {
      const ParamSpec& spec = piece.param->spec;
      std::vector<double>& values = into.weights[spec.name];
      values.resize(static_cast<size_t>(spec.shape.numel()), std::numeric_limits<double>::quiet_NaN());
      const int64_t first = piece.param->first + piece.first;
      dispatch_float(piece.value.dtype(), [&](auto type) {
        using T = decltype(type);
        const auto part = trainer.context().read<T>(piece.value, [] { return std::vector<T>(); });
        for (size_t i = 0; i < part.size(); ++i) {
          double& value = values[static_cast<size_t>(first) + i];
          // Ranks that hold the same element agree.
          if (!std::isnan(value)) {
            EXPECT_EQ(value, static_cast<double>(part[i])) << spec.name;
          }
          value = static_cast<double>(part[i]);
        }
      });
    }
  }
}

}  // namespace

Training train(const Layout& layout, const TrainingOptions& options) {
  const Config config = tiny_config(layout.overrides, layout.family);
  const RunSpec spec = resolve(config, layout.ranks);
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  Training training;
  std::mutex mutex;
  LaunchOptions session{.device = options.device, .threads = options.threads};
  session.comm.timeout_s = 120;
  session.comm.async = options.async_comm;
  session.hardware = options.hardware;
  session.courier = options.courier;
  run_session(spec, session, dataset, [&](Trainer& trainer) {
    std::vector<double> losses;
    std::vector<std::vector<LayerLoad>> loads;
    for (int step = 0; step < options.steps; ++step) {
      StepResult result = trainer.step(step);
      losses.push_back(result.loss);
      loads.push_back(std::move(result.expert_load));
    }
    const std::lock_guard lock(mutex);
    if (trainer.mesh().world.rank() == 0) {
      training.losses = losses;
      training.loads = loads;
    }
    collect(trainer, training);
  });
  return training;
}

GpuCase emulated_gpu() {
  constexpr int kRowAlign = 4;
  return {"cuda_emulated",
          {.backend = [](int) { return emulation::make_backend(kRowAlign, /*synchronous=*/false); },
           .memory = [](int) { return emulation::make_memory(); },
           .mover = [](int) { return emulation::make_mover(); }}};
}

GpuCase real_gpu() {
  return {"cuda",
          {.backend = [](int) { return cuda::make_backend({}); },
           .memory = [](int) { return cuda::make_device_memory(0); },
           .mover = [](int) { return cuda::make_mover(0); }},
          cuda::find_gpus().why_none};
}

TrainingDifference compare(const Training& one, const Training& other) {
  TrainingDifference difference;
  const double none = std::numeric_limits<double>::infinity();
  if (one.losses.size() != other.losses.size() || one.weights.size() != other.weights.size()) return {none, none, "?"};
  // Written so that NaN is never small.
  const auto raise = [](double& worst, double value) {
    if (!(value <= worst)) worst = value;
  };
  for (size_t i = 0; i < one.losses.size(); ++i) {
    raise(difference.loss, std::abs(one.losses[i] - other.losses[i]) / std::abs(one.losses[i]));
  }
  for (const auto& [name, values] : one.weights) {
    const auto found = other.weights.find(name);
    if (found == other.weights.end() || found->second.size() != values.size()) return {none, none, name};
    double largest = 0;
    double error = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      raise(largest, std::abs(values[i]));
      raise(error, std::abs(values[i] - found->second[i]));
    }
    const double relative = error / largest;
    if (!(relative <= difference.weight)) {
      difference.weight = relative;
      difference.worst_weight = name;
    }
  }
  return difference;
}

}  // namespace sluice::test
