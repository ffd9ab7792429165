// What the engine needs to know of a model, whatever its family: plain numbers, checked once.
// Legend: V vocabulary, D hidden, L layers, n heads, kv key/value heads, hd head dim, E experts, K top-k, F expert
// width.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/hf_config.h"
#include "ops/rope.h"
#include "ops/sigmoid_router.h"
#include "ops/swiglu.h"

namespace sluice {

struct ModelConfig {
  std::string model_type;  // of Hugging Face: the family
  std::string name;        // for people: "Qwen3-30B-A3B"
  std::string hub_id;      // "Qwen/Qwen3-30B-A3B", a directory, or empty for a model written out in the configuration

  int64_t vocab_size = 0;           // V
  int64_t hidden_size = 0;          // D
  int64_t num_layers = 0;           // L
  int64_t num_heads = 0;            // n
  int64_t num_kv_heads = 0;         // kv, divides n
  int64_t head_dim = 0;             // hd, even; n hd need not be D
  int64_t ffn = 0;                  // width of a dense layer's MLP; 0: there is none
  int64_t num_experts = 0;          // E; 0: a dense model
  int64_t top_k = 0;                // K <= E
  int64_t moe_ffn = 0;              // F
  int64_t dense_layers = 0;         // so many layers come first that have an MLP of width ffn and no experts
  int64_t sparse_step = 1;          // of every so many layers the last has experts, the others an MLP
  std::vector<int64_t> mlp_layers;  // these layers have an MLP too
  int64_t shared_experts = 0;       // that every token visits: an MLP of width shared_experts F beside the others
  SigmoidRouterSpec sigmoid;        // of families with a sigmoid router
  SwigluForm gate_form;             // of the experts
  bool qk_norm = false;             // RMSNorm on each head of q and k
  bool attention_bias = false;      // of q, k, v and the output projection
  bool tied_head = false;           // the head's matrix is the embedding
  bool renormalize = true;          // a softmax router's weights sum to 1
  int64_t window = 0;               // layers 0, 2, 4.. attend to so many keys; 0: all layers to all
  // Multi-head latent attention instead of grouped-query attention, where kv_lora is not 0. head_dim is then dr.
  int64_t q_lora = 0;  // 0: queries come from the hidden state
  int64_t kv_lora = 0;
  int64_t nope_dim = 0;  // columns of a query or key without positions; dr = head_dim with
  int64_t v_dim = 0;
  double mla_scale = 1;  // of the softmax, over 1 / sqrt(nope_dim + dr)
  double rope_theta = 10000;
  RopeScaling rope_scaling;  // factor 1: plain rotary positions
  double norm_eps = 1e-6;
  double init_std = 0.02;
  int64_t max_positions = 0;        // what the authors trained for; nothing depends on it
  double aux_loss_coef = 0;         // the family's default
  double config_aux_loss_coef = 0;  // config.json's
  int64_t nextn_layers = 0;         // extra layers that predict further tokens, as the authors trained them
  bool mtp = false;                 // the first of these is part of the model, as layer L

  // Whether a layer has experts instead of an MLP of width ffn. The extra layer is layer L.
  bool has_experts(int64_t layer) const;
  int64_t count_with_experts() const;  // of the L layers

  bool operator==(const ModelConfig&) const = default;
};

// Bounds of what a configuration may ask for, far above any model; within them no product of sizes overflows int64.
namespace model_bounds {
inline constexpr IntegerRange vocab{1, int64_t{1} << 24};
inline constexpr IntegerRange width{1, int64_t{1} << 20};  // of hidden states and experts
inline constexpr IntegerRange layers{1, 4096};
inline constexpr IntegerRange heads{1, 4096};
inline constexpr IntegerRange head_dim{2, 4096};
inline constexpr IntegerRange experts{1, 16384};
inline constexpr IntegerRange positions{1, int64_t{1} << 30};
inline constexpr double parameters = 1125899906842624.0;  // 2^50
inline constexpr double expert_stacks = 1048576;          // L E: tensors on the hub grow with it
}  // namespace model_bounds

// What must hold between the values; single values are bounded as they are read. `source` says where they came from,
// `experts_key` how the family spells the number of experts. Throws user errors.
void validate(const ModelConfig& model, const HfConfig& source, std::string_view experts_key);

}  // namespace sluice
