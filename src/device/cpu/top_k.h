// The choice among experts that both routers make.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sluice::cpu {

// The numbers of the K largest of E values in order, the lower one first among equals; by insertion.
inline void best_experts(const float* values, int64_t num_experts, int64_t top_k, int32_t* experts) {
  const auto before = [&](int32_t e, int32_t f) { return values[e] > values[f] || (values[e] == values[f] && e < f); };
  int64_t found = 0;
  for (int32_t e = 0; e < num_experts; ++e) {
    int64_t place = found;
    while (place > 0 && before(e, experts[place - 1])) --place;
    if (place >= top_k) continue;
    found = std::min(found + 1, top_k);
    for (int64_t j = found - 1; j > place; --j) experts[j] = experts[j - 1];
    experts[place] = e;
  }
}

}  // namespace sluice::cpu
