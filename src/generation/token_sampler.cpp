#include "generation/token_sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/hash.h"
#include "base/philox.h"

namespace sluice {

namespace {

// Divides by the sum.
void normalise(std::vector<Candidate>& list) {
  double sum = 0;
  for (const Candidate& c : list) sum += c.probability;
  for (Candidate& c : list) c.probability /= sum;
}

}  // namespace

std::vector<Candidate> candidates(std::span<const double> logits, const SamplingOptions& options) {
  require(!logits.empty() && options.temperature >= 0 && options.top_k >= 0 && options.top_p > 0 && options.top_p <= 1,
          "{} logits, temperature {}, top-k {}, top-p {}", logits.size(), options.temperature, options.top_k,
          options.top_p);
  for (const double x : logits) {
    if (!std::isfinite(x)) {
      throw runtime_failure("the model's logit of a next token is {}", x)
          .advise("weights that are not finite, or too large for runtime.dtype, make it so");
    }
  }
  const auto most = std::ranges::max_element(logits);
  if (options.temperature == 0) return {{static_cast<int32_t>(most - logits.begin()), 1}};
  // p = exp((logit - largest) / temperature), normalised
  std::vector<Candidate> list(logits.size());
  for (size_t i = 0; i < list.size(); ++i) {
    list[i] = {static_cast<int32_t>(i), std::exp((logits[i] - *most) / options.temperature)};
  }
  const auto more_probable = [&](const Candidate& a, const Candidate& b) {
    const double left = logits[static_cast<size_t>(a.token)], right = logits[static_cast<size_t>(b.token)];
    return left > right || (left == right && a.token < b.token);
  };
  const auto k = static_cast<size_t>(options.top_k);
  if (k > 0 && k < list.size()) {
    std::ranges::nth_element(list, list.begin() + options.top_k, more_probable);
    list.resize(k);
  }
  if (list.size() < logits.size() || options.top_p < 1) std::ranges::sort(list, more_probable);
  normalise(list);
  if (options.top_p < 1) {
    double sum = 0;
    size_t kept = 0;
    while (kept < list.size() && sum < options.top_p) sum += list[kept++].probability;
    list.resize(kept);
    normalise(list);
  }
  return list;
}

int32_t draw_token(std::span<const double> logits, const SamplingOptions& options, int64_t sample, int64_t position) {
  const std::vector<Candidate> list = candidates(logits, options);
  const Philox random(hash64("generate", options.seed));
  const double u = random.uniform(static_cast<uint64_t>(position), static_cast<uint64_t>(sample));
  double sum = 0;
  for (const Candidate& c : list) {
    sum += c.probability;
    if (u < sum) return c.token;
  }
  // Rounding left the sum below 1.
  return std::ranges::max_element(list, {}, &Candidate::probability)->token;
}

}  // namespace sluice
