// The rotary settings of a configuration in either spelling: `rope_theta` beside `rope_scaling`, or the newer
// `rope_parameters` that holds both.
#pragma once

#include "model/hf_config.h"

namespace sluice {

struct RopeSettings {
  double theta = 10000;
};

// Plain rotary positions only: any other rope type, and any field of a scaling, is a user error.
RopeSettings read_rope(HfConfig config, double default_theta);

}  // namespace sluice
