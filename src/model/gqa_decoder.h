// What families of pre-norm decoders share: their common fields, and with grouped-query attention that part of a block
// and of the FLOPs. A family file says which of it applies.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/hub_tensors.h"

namespace sluice {

// Throws "KEY is VALUE: WHY" if `present`.
void refuse(const HfConfig& config, std::string_view key, bool present, std::string_view why);

struct DecoderDefaults {
  double rope_theta = 10000;
  double norm_eps = 1e-6;
  int64_t max_positions = 0;
  bool attention_bias = false;  // of Hugging Face's class
  // Whether head_dim and num_key_value_heads follow from the others where they are absent, as in Hugging Face's class;
  // elsewhere its defaults are those of one model.
  bool derives_head_dim = true;
  bool derives_kv_heads = true;
};
// Sizes and numbers every configuration has: vocabulary, width, layers, heads, norm, initialisation. Refuses what none
// of the families here can be (dropout, other activations).
ModelConfig read_decoder(const HfConfig& config, const DecoderDefaults& defaults);
// The same with grouped heads of one size and rotary positions on all their columns.
ModelConfig read_gqa_decoder(const HfConfig& config, const DecoderDefaults& defaults);

// A block's attention, norm and initialisation; the caller adds experts or an MLP.
BlockConfig gqa_block(const ModelConfig& model, int64_t layer, int64_t seq_len);

// 6 L S D^2 (hd n / D) [(2 kv / n + 1) + S / D + 1] + 6 S D 3 W + 6 S D V, with the divisions done (integers below 2^53
// stay exact). W is the sum of the widths of all MLPs that one token passes, over the layers.
double gqa_flops_per_sequence(const ModelConfig& model, int64_t seq_len, int64_t mlp_widths);

// Dense members of these families: every layer has an MLP of width ModelConfig::ffn.
BlockConfig dense_block(const ModelConfig& model, int64_t layer, int64_t seq_len);
double dense_flops_per_sequence(const ModelConfig& model, int64_t seq_len);
std::vector<HubTensor> dense_tensors(const ModelConfig& model);

}  // namespace sluice
