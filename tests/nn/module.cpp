#include "module.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace sluice::test {

double routing_margin(const Tensor& probs, int64_t top_k) {
  const std::vector<double> values = values_of(probs);
  const auto num_experts = static_cast<size_t>(probs.dim(1));
  double margin = std::numeric_limits<double>::infinity();
  for (size_t begin = 0; begin < values.size(); begin += num_experts) {
    const auto row = values.begin() + static_cast<int64_t>(begin);
    std::vector<double> sorted(row, row + static_cast<int64_t>(num_experts));
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    for (size_t j = 0; j < static_cast<size_t>(top_k) && j + 1 < num_experts; ++j) {
      margin = std::min(margin, std::log(sorted[j] / sorted[j + 1]));
    }
  }
  return margin;
}

Tensor choices_of(TestContext& tc, const Tensor& scores, const Tensor& bias) {
  std::vector<double> values = values_of(scores);
  const std::vector<double> added = values_of(bias);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::exp(values[i] + added[i % added.size()]);
  const Tensor choices = tc->scratch().empty(scores.shape(), scores.dtype());
  assign(choices, values);
  return choices;
}

}  // namespace sluice::test
