// What families of pre-norm decoders with grouped-query attention share: their common fields, the attention part of a
// block and of the FLOPs, and a list of hub tensors built layer by layer. A family file says which of it applies.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/family.h"

namespace sluice {

// Throws "KEY is VALUE: WHY" if `present`.
void refuse(const HfConfig& config, std::string_view key, bool present, std::string_view why);

// Sizes and numbers every such configuration has: vocabulary, widths, layers, heads, RoPE, norm, initialisation.
// Refuses what none of the families here can be (biases, dropout, tied heads, other activations).
struct GqaDefaults {
  double rope_theta = 10000;
  double norm_eps = 1e-6;
  int64_t max_positions = 0;
};
ModelConfig read_gqa_decoder(const HfConfig& config, const GqaDefaults& defaults);
// The fields read_gqa_decoder looks at.
#define SLUICE_GQA_DECODER_FIELDS                                                                               \
  "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", \
      "head_dim", "rms_norm_eps", "initializer_range", "max_position_embeddings", "rope_theta", "rope_scaling", \
      "rope_parameters", "hidden_act", "attention_bias", "attention_dropout", "tie_word_embeddings"

// A block's attention, norm and initialisation; the caller adds experts or an MLP.
BlockConfig gqa_block(const ModelConfig& model, int64_t layer, int64_t seq_len);

// 6 L S D^2 (hd n / D) [(2 kv / n + 1) + S / D + 1] + 6 L S D 3 W + 6 S D V, with the divisions done (integers below
// 2^53 stay exact). W is the width of the MLPs that one token passes in a layer.
double gqa_flops_per_sequence(const ModelConfig& model, int64_t seq_len, int64_t mlp_width);

// Dense members of these families: every layer has an MLP of width ModelConfig::ffn.
BlockConfig dense_block(const ModelConfig& model, int64_t layer, int64_t seq_len);
double dense_flops_per_sequence(const ModelConfig& model, int64_t seq_len);
std::vector<HubTensor> dense_tensors(const ModelConfig& model);

// Collects the tensors of a model in the order of the network, under the names of Hugging Face's classes.
class HubTensorList {
 public:
  explicit HubTensorList(const ModelConfig& model) : model_(model) {}

  void embedding();
  void attention(int64_t layer);  // with the norms before it and before the MLP or experts
  void mlp(int64_t layer);
  void experts(int64_t layer);  // and their router
  void head();
  std::vector<HubTensor> take() { return std::move(list_); }

 private:
  void whole(std::string hub, std::string ours, Shape shape);

  const ModelConfig& model_;
  std::vector<HubTensor> list_;
};

}  // namespace sluice
