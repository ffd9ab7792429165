// How evenly a layer's experts were used: figures of the slots (a token's choices) that each got in a step.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace sluice {

struct LayerLoad {
  std::string layer;         // "layers.3"
  double max_over_mean = 0;  // slots of the fullest expert over the mean; 1: even, E / K: all tokens go to the same K
  double entropy = 0;        // of the experts' shares, over that of equal shares; 1: even
  int64_t unused = 0;        // experts that got nothing
  bool operator==(const LayerLoad&) const = default;
};

// All figures but `unused` are 0 where there are no slots.
LayerLoad layer_load(std::string layer, std::span<const double> slots);

}  // namespace sluice
