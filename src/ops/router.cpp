#include "ops/router.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/philox.h"

namespace sluice {

namespace {

// Keys of the quantities a gate draws, so that none shares bits with another.
enum GateDraw : uint64_t { kPermutation = 0x67617465'00000001, kScore, kScoreNoise, kWeight, kHot };

Philox draws(const GateSpec& gate, GateDraw what) {
  return Philox(gate.seed ^ what * 0x9e3779b97f4a7c15);
}

bool contains(const int32_t* values, int64_t count, int32_t value) {
  return std::find(values, values + count, value) != values + count;
}

// Slot j of token i (of its block of n) goes to a i + b + shift_j mod n with a prime to n and distinct shifts: every
// slot alone visits each of the n once per block.
void spread(const GateSpec& gate, int64_t n, int64_t token, int32_t* out) {
  const Philox random = draws(gate, kPermutation);
  const auto block = static_cast<uint64_t>(token / n);
  uint64_t index = 0;
  const auto below = [&](int64_t bound) {
    return static_cast<int64_t>(random.below(static_cast<uint64_t>(bound), index++, block));
  };
  // K distinct shifts [Floyd's sampling]; any order of them serves.
  for (int64_t j = 0; j < gate.top_k; ++j) {
    const int64_t last = n - gate.top_k + j;
    const auto drawn = static_cast<int32_t>(below(last + 1));
    out[j] = contains(out, j, drawn) ? static_cast<int32_t>(last) : drawn;
  }
  int64_t step = below(n);
  while (std::gcd(step, n) != 1) step = below(n);
  const int64_t place = step * (token % n) + below(n);
  for (int64_t j = 0; j < gate.top_k; ++j) out[j] = static_cast<int32_t>((place + out[j]) % n);
}

// Share of the tokens that choose the hot expert.
double hot_share(const GateSpec& gate) {
  return gate.skew * static_cast<double>(gate.top_k) / static_cast<double>(gate.num_experts);
}

// Tokens are spread over the experts that are neither hot nor idle; every 1 / share tokens the last slot goes to the
// hot one instead. Relative to the hot expert, the cold ones are 1 .. cold.
void skewed(const GateSpec& gate, int64_t token, int32_t* experts) {
  const int64_t num_experts = gate.num_experts;
  const int64_t top_k = gate.top_k;
  const int64_t cold = num_experts - 1 - gate.idle;
  const double share = std::min(hot_share(gate), 1.0);
  const auto at = static_cast<double>(token);
  const bool chosen = share == 1.0 || std::floor((at + 1) * share) > std::floor(at * share);
  GateSpec others = gate;
  others.top_k = chosen ? std::min(top_k, cold) : top_k;
  if (cold > 0) spread(others, cold, token, experts);
  for (int64_t j = 0; j < others.top_k; ++j) ++experts[j];
  if (chosen) experts[top_k - 1] = 0;
  const auto hot = static_cast<int64_t>(draws(gate, kHot).below(static_cast<uint64_t>(num_experts), 0));
  for (int64_t j = 0; j < top_k; ++j) experts[j] = static_cast<int32_t>((hot + experts[j]) % num_experts);
}

// The K largest of uniform + 0.1 z normal; ties to the lower expert.
void noisy(const GateSpec& gate, int64_t token, int32_t* experts) {
  const Philox uniform = draws(gate, kScore);
  const Philox normal = draws(gate, kScoreNoise);
  const auto stream = static_cast<uint64_t>(token);
  std::vector<double> score(static_cast<size_t>(gate.num_experts));
  for (size_t e = 0; e < score.size(); ++e) {
    score[e] = uniform.uniform(e, stream) + 0.1 * gate.noise * normal.normal(e, stream);
  }
  std::vector<int32_t> order(score.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + gate.top_k, order.end(), [&](int32_t a, int32_t b) {
    const double sa = score[static_cast<size_t>(a)], sb = score[static_cast<size_t>(b)];
    return sa != sb ? sa > sb : a < b;
  });
  std::copy_n(order.begin(), gate.top_k, experts);
}

}  // namespace

void GateSpec::check() const {
  if (top_k < 1 || top_k > num_experts) throw user_error("top_k is {} with {} experts", top_k, num_experts);
  if (!(noise >= 0 && noise <= 1)) throw user_error("gate noise is {}, not in [0, 1]", noise);
  if (kind != GateKind::skewed) return;
  const int64_t busy = num_experts - idle;
  if (idle < 0 || busy < top_k + (hot_share(*this) < 1 ? 1 : 0)) {
    throw user_error("{} idle experts of {} leave too few for top_k {}", idle, num_experts, top_k);
  }
  const double least = static_cast<double>(num_experts) / static_cast<double>(busy);
  const double most = static_cast<double>(num_experts) / static_cast<double>(top_k);
  constexpr double kSlack = 1e-9;
  if (!(skew >= least - kSlack && skew <= most + kSlack)) {
    throw user_error("gate skew {} is not in [{}, {}], what {} experts with {} idle and top_k {} can have", skew, least,
                     most, num_experts, idle, top_k);
  }
}

void gate_experts(const GateSpec& gate, int64_t token, int32_t* experts) {
  switch (gate.kind) {
    case GateKind::published:
      if (gate.noise > 0) {
        noisy(gate, token, experts);
        return;
      }
      for (int64_t j = 0; j < gate.top_k; ++j) {
        experts[j] = static_cast<int32_t>((token * gate.top_k + j) % gate.num_experts);
      }
      return;
    case GateKind::spread:
      spread(gate, gate.num_experts, token, experts);
      return;
    case GateKind::skewed:
      skewed(gate, token, experts);
      return;
  }
}

void gate_weights(const GateSpec& gate, int64_t token, double* weights) {
  std::fill_n(weights, gate.top_k, 1.0 / static_cast<double>(gate.top_k));
  if (gate.kind != GateKind::published || gate.noise == 0) return;
  const Philox random = draws(gate, kWeight);
  const auto drawn = [&](int64_t j) {  // (0, 1], so that their sum is not 0
    return 1.0 - random.uniform(static_cast<uint64_t>(j), static_cast<uint64_t>(token));
  };
  double sum = 0;
  for (int64_t j = 0; j < gate.top_k; ++j) sum += drawn(j);
  for (int64_t j = 0; j < gate.top_k; ++j) weights[j] = (1 - gate.noise) * weights[j] + gate.noise * drawn(j) / sum;
}

void SoftmaxTopKForward::check() const {
  expect_float(name, "logits", logits, 2);
  require(logits.dtype() != DType::bf16, "{}: logits are {}, expected the accumulator type", name, logits.str());
  const int64_t num_tokens = logits.dim(0);
  const int64_t top_k = experts.dim(1);
  require(top_k >= 1 && top_k <= logits.dim(1), "{}: top {} of {} experts", name, top_k, logits.dim(1));
  expect_dense(name, "experts", experts, {num_tokens, top_k}, DType::i32);
  expect(name, "weights", weights, {num_tokens, top_k}, logits.dtype());
  expect(name, "probs", probs, logits.shape(), logits.dtype());
}

double SoftmaxTopKForward::flops() const {
  return 4.0 * static_cast<double>(logits.numel());
}

void SoftmaxTopKBackward::check() const {
  expect_float(name, "dlogits", dlogits, 2);
  require(dlogits.dtype() != DType::bf16, "{}: dlogits are {}, expected the accumulator type", name, dlogits.str());
  const int64_t num_tokens = dlogits.dim(0);
  const int64_t top_k = experts.dim(1);
  require(top_k >= 1 && top_k <= dlogits.dim(1), "{}: top {} of {} experts", name, top_k, dlogits.dim(1));
  expect_dense(name, "experts", experts, {num_tokens, top_k}, DType::i32);
  expect(name, "dweights", dweights, {num_tokens, top_k}, dlogits.dtype());
  expect(name, "weights", weights, {num_tokens, top_k}, dlogits.dtype());
  expect(name, "probs", probs, dlogits.shape(), dlogits.dtype());
}

double SoftmaxTopKBackward::flops() const {
  return 4.0 * static_cast<double>(dlogits.numel());
}

void ForcedGate::check() const {
  gate.check();
  require(seq_len > 0, "{}: seq_len is {}", name, seq_len);
  expect_float(name, "weights", weights, 2);
  require(weights.dtype() != DType::bf16, "{}: weights are {}, expected the accumulator type", name, weights.str());
  const Shape shape{sample_ids.dim(0) * seq_len, gate.top_k};
  expect_dense(name, "sample_ids", sample_ids, {sample_ids.dim(0)}, DType::i64);
  expect_dense(name, "experts", experts, shape, DType::i32);
  expect(name, "weights", weights, shape, weights.dtype());
}

}  // namespace sluice
