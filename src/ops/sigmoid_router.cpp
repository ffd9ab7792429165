#include "ops/sigmoid_router.h"

namespace sluice {

void SigmoidTopKForward::check() const {
  expect_float(name, "logits", logits, 2);
  expect_float(name, "weights", weights, 2);
  const DType dtype = logits.dtype();
  const int64_t tokens = logits.dim(0), num_experts = logits.dim(1), top_k = weights.dim(1);
  expect(name, "scores", scores, logits.shape(), dtype);
  expect(name, "weights", weights, {tokens, top_k}, dtype);
  expect_dense(name, "experts", experts, {tokens, top_k}, DType::i32);
  expect_dense(name, "bias", bias, {num_experts}, dtype);
  const bool grouped =
      spec.groups >= 1 && num_experts % spec.groups == 0 && spec.top_groups >= 1 && spec.top_groups <= spec.groups;
  require(grouped, "{}: {} of {} groups of {} experts", name, spec.top_groups, spec.groups, num_experts);
  require(top_k >= 1 && top_k <= num_experts / spec.groups * spec.top_groups, "{}: {} of {} experts in {} of {} groups",
          name, top_k, num_experts, spec.top_groups, spec.groups);
}

double SigmoidTopKForward::flops() const {
  return 6.0 * static_cast<double>(logits.numel());
}

void SigmoidTopKBackward::check() const {
  expect_float(name, "dlogits", dlogits, 2);
  expect_float(name, "weights", weights, 2);
  const DType dtype = dlogits.dtype();
  expect(name, "scores", scores, dlogits.shape(), dtype);
  expect(name, "weights", weights, {dlogits.dim(0), weights.dim(1)}, dtype);
  expect(name, "dweights", dweights, weights.shape(), dtype);
  expect_dense(name, "experts", experts, weights.shape(), DType::i32);
}

double SigmoidTopKBackward::flops() const {
  return 8.0 * static_cast<double>(weights.numel());
}

}  // namespace sluice
