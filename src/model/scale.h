// The published rows are for machines with hundreds of GPUs. The scale rule makes a model of the same shape that a
// CPU can train: a pure function of the model, its sequence length and what the row's layout needs.
//
//                    laptop                       tiny
//   hidden           256                          32
//   head_dim         64                           8        of MLA: of a value, a query without its rotary part (half)
//   heads, kv heads  heads head_dim / hidden and heads / kv heads stay as they are, to the nearest whole group
//   expert width     ffn / hidden stays, to the nearest multiple of 32 (tiny: 4); latents likewise, of 8 (tiny: 4)
//   top-k            2
//   experts          experts / top-k stays, rounded up to a multiple of the row's ep and of the groups
//   layers           4                            2      or as many as the row's stages and chunks need; one dense
//   sliding window   128                          16
//   vocabulary       4096                         256
//   sequence         512                          64
//
// Nothing ever grows. Qwen3-30B-A3B becomes 12.8 M (tiny: 0.1 M) parameters, 23 MFLOP per token: seven steps of
// 8 x 512 tokens are 0.67 TFLOP.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/model_config.h"

namespace sluice {

enum class Scale : uint8_t { laptop, tiny };
// "laptop" or "tiny"; anything else is a user error.
Scale parse_scale(std::string_view word, std::string where = {});
std::string_view name_of(Scale scale);

struct ScaleNeeds {
  int64_t ep = 1;          // expert parallel ranks of the row
  int64_t min_layers = 1;  // pp x vp that is to be kept
  // Fields given by hand, by their config.json name (and "seq_len"): they keep their values.
  std::span<const std::string> keep;
};

struct ScaleChange {
  std::string key;  // of config.json; "seq_len" is the dataset's
  int64_t old_value = 0;
  int64_t new_value = 0;
  std::string reason;

  bool operator==(const ScaleChange&) const = default;
};

struct ScaledModel {
  ModelConfig model;  // what the changes make of its config.json, but for YaRN's ramp, which follows the rotary width
  int64_t seq_len = 0;
  std::vector<ScaleChange> changes;  // in the order of the table above; what stays is not listed
};

// User error when values kept by hand cannot go together with the others.
ScaledModel scale_model(const ModelConfig& model, int64_t seq_len, Scale scale, const ScaleNeeds& needs = {});

}  // namespace sluice
