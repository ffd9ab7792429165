// From logits to the next token. What may be drawn and how probably is one function, the draw another: a pure function
// of the seed, the sample's number and the token's position, so that a text does not depend on threads or on what else
// is generated.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sluice {

struct SamplingOptions {
  double temperature = 0;  // logits are divided by it; 0: the most probable token, always
  int64_t top_k = 0;       // of the most probable tokens so many; 0: all
  double top_p = 1;        // of these the fewest whose probabilities sum up to it, the most probable first
  uint64_t seed = 0;
};

struct Candidate {
  int32_t token = 0;
  double probability = 0;
};

// The tokens that may be drawn; probabilities sum up to 1. Of equal logits the lower token counts as more probable.
// Runtime error where a logit is NaN or infinite.
std::vector<Candidate> candidates(std::span<const double> logits, const SamplingOptions& options);

// The token at `position` of sample number `sample`.
int32_t draw_token(std::span<const double> logits, const SamplingOptions& options, int64_t sample, int64_t position);

}  // namespace sluice
