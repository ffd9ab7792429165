#include "ops/router.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace sluice {

namespace {

// The K best scores; ties to the lower expert.
void scored_experts(const GateSpec& gate, int64_t token, int32_t* experts) {
  std::vector<double> score(static_cast<size_t>(gate.num_experts));
  for (size_t e = 0; e < score.size(); ++e) score[e] = gates::score(gate, token, static_cast<int64_t>(e));
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
