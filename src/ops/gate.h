// How a gate without parameters spreads tokens: a pure function of (seed, global token id, slot), so that any rank, any
// device, and a plan without data, can evaluate it for any token.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/philox.h"

namespace sluice {

enum class GateKind : uint8_t {
  published,  // expert = (token K + slot) mod E, weight 1 / K: neighbours, exactly balanced
  spread,     // K random distinct experts a token, exactly balanced over every E consecutive tokens
  skewed,     // one random expert gets `skew` times the mean load, exact over any range; the others share the rest
};

struct GateSpec {
  GateKind kind = GateKind::published;
  int64_t num_experts = 0;  // E
  int64_t top_k = 0;        // K
  double skew = 1;          // max / mean load of `skewed`
  // The published gate's noise z in [0, 1]: weights (1 - z) / K + z * normalised uniform, experts = top-K of
  // uniform(E) + normal(E) * 0.1 z. 0 is the exact gate.
  double noise = 0;
  uint64_t seed = 0;
  int64_t idle = 0;  // experts that `skewed` gives no token at all

  bool operator==(const GateSpec&) const = default;
  // Throws a user error unless the numbers are possible: K <= E, noise in [0, 1], skew in [E / (E - idle), E / K], ...
  void check() const;
  // Whether a token's experts are the K best of E scores (gates::score), not a formula (gates::exact_experts).
  SLUICE_HOST_DEVICE bool scored() const { return kind == GateKind::published && noise > 0; }
};

// The K experts of one token, into `experts[0 .. K)`; all different.
void gate_experts(const GateSpec& gate, int64_t token, int32_t* experts);
// The K weights of one token; they sum to 1.
void gate_weights(const GateSpec& gate, int64_t token, double* weights);

namespace gates {

// Keys of the quantities a gate draws, so that none shares bits with another.
enum Draw : uint64_t { kPermutation = 0x67617465'00000001, kScore, kScoreNoise, kWeight, kHot };

SLUICE_HOST_DEVICE inline Philox draws(const GateSpec& gate, Draw what) {
  return Philox(gate.seed ^ what * 0x9e3779b97f4a7c15);
}

// Slot j of token i (of its block of n) goes to a i + b + shift_j mod n with a prime to n and distinct shifts: every
// slot alone visits each of the n once per block.
SLUICE_HOST_DEVICE inline void spread(const GateSpec& gate, int64_t n, int64_t top_k, int64_t token, int32_t* out) {
  const Philox random = draws(gate, kPermutation);
  const auto block = static_cast<uint64_t>(token / n);
  uint64_t index = 0;
  const auto below = [&](int64_t bound) {
    return static_cast<int64_t>(random.below(static_cast<uint64_t>(bound), index++, block));
  };
  // K distinct shifts [Floyd's sampling]; any order of them serves.
  for (int64_t j = 0; j < top_k; ++j) {
    const int64_t last = n - top_k + j;
    const auto drawn = static_cast<int32_t>(below(last + 1));
    bool taken = false;
    for (int64_t i = 0; i < j; ++i) taken = taken || out[i] == drawn;
    out[j] = taken ? static_cast<int32_t>(last) : drawn;
  }
  const auto prime_to_n = [&](int64_t a) {
    int64_t b = n;
    while (a != 0) {
      const int64_t rest = b % a;
      b = a;
      a = rest;
    }
    return b == 1;
  };
  int64_t step = below(n);
  while (!prime_to_n(step)) step = below(n);
  const int64_t place = step * (token % n) + below(n);
  for (int64_t j = 0; j < top_k; ++j) out[j] = static_cast<int32_t>((place + out[j]) % n);
}

// Share of the tokens that choose the hot expert.
SLUICE_HOST_DEVICE inline double hot_share(const GateSpec& gate) {
  return gate.skew * static_cast<double>(gate.top_k) / static_cast<double>(gate.num_experts);
}

// Tokens are spread over the experts that are neither hot nor idle; every 1 / share tokens the last slot goes to the
// hot one instead. Relative to the hot expert, the cold ones are 1 .. cold.
SLUICE_HOST_DEVICE inline void skewed(const GateSpec& gate, int64_t token, int32_t* experts) {
  const int64_t num_experts = gate.num_experts;
  const int64_t top_k = gate.top_k;
  const int64_t cold = num_experts - 1 - gate.idle;
  const double share = hot_share(gate) < 1.0 ? hot_share(gate) : 1.0;
  const auto at = static_cast<double>(token);
  const bool chosen = share == 1.0 || std::floor((at + 1) * share) > std::floor(at * share);
  const int64_t others = chosen && cold < top_k ? cold : top_k;
  if (cold > 0) spread(gate, cold, others, token, experts);
  for (int64_t j = 0; j < others; ++j) ++experts[j];
  if (chosen) experts[top_k - 1] = 0;
  const auto hot = static_cast<int64_t>(draws(gate, kHot).below(static_cast<uint64_t>(num_experts), 0));
  for (int64_t j = 0; j < top_k; ++j) experts[j] = static_cast<int32_t>((hot + experts[j]) % num_experts);
}

// The experts of a gate that is not scored: integer arithmetic, the same on every device.
SLUICE_HOST_DEVICE inline void exact_experts(const GateSpec& gate, int64_t token, int32_t* experts) {
  if (gate.kind == GateKind::spread) {
    spread(gate, gate.num_experts, gate.top_k, token, experts);
  } else if (gate.kind == GateKind::skewed) {
    skewed(gate, token, experts);
  } else {
    for (int64_t j = 0; j < gate.top_k; ++j) {
      experts[j] = static_cast<int32_t>((token * gate.top_k + j) % gate.num_experts);
    }
  }
}

// uniform + 0.1 z normal; the K largest win, ties go to the lower expert. Devices agree to the last digits of log and
// cos.
SLUICE_HOST_DEVICE inline double score(const GateSpec& gate, int64_t token, int64_t expert) {
  const auto stream = static_cast<uint64_t>(token), at = static_cast<uint64_t>(expert);
  return draws(gate, kScore).uniform(at, stream) + 0.1 * gate.noise * draws(gate, kScoreNoise).normal(at, stream);
}

// What slot j of a noisy gate draws for its weight: in (0, 1], so that their sum is not 0.
SLUICE_HOST_DEVICE inline double drawn_weight(const GateSpec& gate, int64_t token, int64_t slot) {
  return 1.0 - draws(gate, kWeight).uniform(static_cast<uint64_t>(slot), static_cast<uint64_t>(token));
}

// Calls put(j, weight) for the K slots of a token.
template <class Put>
SLUICE_HOST_DEVICE inline void weights(const GateSpec& gate, int64_t token, Put&& put) {
  const double even = 1.0 / static_cast<double>(gate.top_k);
  double sum = 0;
  if (gate.scored()) {
    for (int64_t j = 0; j < gate.top_k; ++j) sum += drawn_weight(gate, token, j);
  }
  for (int64_t j = 0; j < gate.top_k; ++j) {
    put(j, gate.scored() ? (1 - gate.noise) * even + gate.noise * drawn_weight(gate, token, j) / sum : even);
  }
}

}  // namespace gates

}  // namespace sluice
