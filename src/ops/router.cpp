#include "ops/router.h"

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

namespace sluice {

namespace {

// The K best of the experts offered so far, best first; ties to the lower expert.
class BestExperts {
 public:
  BestExperts(int64_t top_k, int32_t* experts)
      : scores_(static_cast<size_t>(top_k), -std::numeric_limits<double>::infinity()), experts_(experts) {}

  // The lowest of their scores.
  double bar() const { return scores_.back(); }
  void offer(double score, int32_t expert) {
    const auto beats = [&](size_t at) {
      return score > scores_[at] || (score == scores_[at] && expert < experts_[at]);
    };
    size_t at = scores_.size() - 1;
    if (!beats(at)) return;
    for (; at > 0 && beats(at - 1); --at) {
      scores_[at] = scores_[at - 1];
      experts_[at] = experts_[at - 1];
    }
    scores_[at] = score;
    experts_[at] = expert;
  }

 private:
  std::vector<double> scores_;
  int32_t* experts_;
};

// Whether a pair's normals, of radius sqrt(-2 ln(1 - u)), cannot reach `needed`: 1 - u > exp(-needed^2 / 2), seen
// without a logarithm from exp(-x) < 1 / (1 + x + x^2 / 2 + x^3 / 6). What rounding might decide is not short.
bool falls_short(double needed, double u) {
  constexpr double kRounding = 1e-14;  // of ten operations on values near 1
  const double x = needed * needed / 2;
  return needed > 0 && (1 - u) * (1 + x * (1 + x * (1 + x / 3) / 2)) > 1 + kRounding;
}

std::vector<std::array<double, 2>> uniform_pairs(const Philox& philox, size_t pairs, uint64_t stream) {
  std::vector<std::array<double, 2>> drawn(pairs);
  for (size_t p = 0; p < pairs; ++p) drawn[p] = philox.uniform_pair(p, stream);
  return drawn;
}

// The K best by gates::score. Two experts share their draws. The normals are most of the work, and are left out of
// pairs that they cannot lift among the K best; the pairs of the largest uniforms go first, so that this is soon known.
void scored_experts(const GateSpec& gate, int64_t token, int32_t* experts) {
  constexpr double kRounding = 1e-15;  // of a score, the sum of two values below 1
  const Philox uniforms = gates::draws(gate, gates::kScore), normals = gates::draws(gate, gates::kScoreNoise);
  const auto stream = static_cast<uint64_t>(token);
  const double scale = 0.1 * gate.noise, per_scale = 1 / scale;
  const auto pairs = static_cast<size_t>((gate.num_experts + 1) / 2);
  const std::vector<std::array<double, 2>> uniform = uniform_pairs(uniforms, pairs, stream);
  const std::vector<std::array<double, 2>> radius = uniform_pairs(normals, pairs, stream);
  BestExperts best(gate.top_k, experts);
  const auto offer = [&](size_t p) {
    const std::array<double, 2> normal = normals.normal_pair(p, stream);
    for (size_t i = 0; i < 2; ++i) {
      const auto expert = static_cast<int32_t>(2 * p + i);
      if (expert < gate.num_experts) best.offer(uniform[p][i] + scale * normal[i], expert);
    }
  };
  const auto largest = [&](size_t p) { return std::max(uniform[p][0], uniform[p][1]); };
  const double first = 1 - 1.5 * static_cast<double>(gate.top_k) / static_cast<double>(gate.num_experts);
  for (size_t p = 0; p < pairs; ++p) {
    if (largest(p) > first) offer(p);
  }
  for (size_t p = 0; p < pairs; ++p) {
    if (largest(p) > first) continue;
    if (!falls_short((best.bar() - kRounding - largest(p)) * per_scale, radius[p][0])) offer(p);
  }
}

}  // namespace

void GateSpec::check() const {
  if (top_k < 1 || top_k > num_experts) throw user_error("top_k is {} with {} experts", top_k, num_experts);
  if (!(noise >= 0 && noise <= 1)) throw user_error("gate noise is {}, not in [0, 1]", noise);
  if (kind != GateKind::skewed) return;
  const int64_t busy = num_experts - idle;
  if (idle < 0 || busy < top_k + (gates::hot_share(*this) < 1 ? 1 : 0)) {
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
  gate.scored() ? scored_experts(gate, token, experts) : gates::exact_experts(gate, token, experts);
}

void gate_weights(const GateSpec& gate, int64_t token, double* weights) {
  gates::weights(gate, token, [&](int64_t j, double weight) { weights[j] = weight; });
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

void RouterZBackward::check() const {
  expect_float(name, "dlogits", dlogits, 2);
  require(dlogits.dtype() != DType::bf16, "{}: dlogits are {}, expected the accumulator type", name, dlogits.str());
  expect(name, "logits", logits, dlogits.shape(), dlogits.dtype());
  expect_dense(name, "grad_scale", grad_scale, {1}, DType::f64);
}

double RouterZBackward::flops() const {
  return 6.0 * static_cast<double>(dlogits.numel());
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
