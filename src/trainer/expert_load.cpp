#include "trainer/expert_load.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace sluice {

LayerLoad layer_load(std::string layer, std::span<const double> slots) {
  LayerLoad load{.layer = std::move(layer), .unused = std::ranges::count(slots, 0.0)};
  const double all = std::accumulate(slots.begin(), slots.end(), 0.0);
  if (all == 0) return load;
  const auto num_experts = static_cast<double>(slots.size());
  load.max_over_mean = std::ranges::max(slots) * num_experts / all;
  double entropy = 0;
  for (const double n : slots) entropy -= n > 0 ? n / all * std::log(n / all) : 0;
  load.entropy = slots.size() > 1 ? entropy / std::log(num_experts) : 1;
  return load;
}

}  // namespace sluice
