// The rotary settings of a configuration in either spelling: `rope_theta` beside `rope_scaling`, or the newer
// `rope_parameters` that holds both.
#pragma once

#include "model/hf_config.h"
#include "ops/rope.h"

namespace sluice {

struct RopeSettings {
  double theta = 10000;
  RopeScaling scaling;        // factor 1: plain rotary positions
  double mscale_all_dim = 0;  // as written, for families whose softmax scale depends on it; 0: not given
};

// Plain positions, linear, Llama 3's or YaRN's scaling over `dim` rotated columns: any other rope type, and any field
// of a scaling that its type does not have, is a user error. Meaning and defaults of the fields are those of Hugging
// Face's modeling_rope_utils.
RopeSettings read_rope(const HfConfig& source, double default_theta, int64_t dim);

// YaRN's growth of attention with the stretch of positions: 0.1 m ln(factor) + 1.
double yarn_mscale(double factor, double m = 1);

}  // namespace sluice
