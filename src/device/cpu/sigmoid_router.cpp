#include <algorithm>
#include <cmath>
#include <vector>

#include "device/cpu/cpu_backend.h"
#include "device/cpu/row_kernels.h"
#include "device/cpu/top_k.h"

namespace sluice {

namespace {

constexpr int64_t kTokens = 256;
constexpr float kTiny = 1e-20F;

// A worker's memory for the groups of a token.
struct Groups {
  std::vector<float> score;
  std::vector<int32_t> best;
  std::vector<bool> kept;
};

// Takes the experts of all but the best groups out of the running.
void keep_best_groups(float* choice, int64_t num_experts, const SigmoidRouterSpec& spec, Groups& groups) {
  const int64_t size = num_experts / spec.groups;
  groups.score.resize(static_cast<size_t>(spec.groups));
  groups.best.resize(static_cast<size_t>(spec.top_groups));
  groups.kept.assign(static_cast<size_t>(spec.groups), false);
  for (int64_t g = 0; g < spec.groups; ++g) {
    float best = -INFINITY;
    float second = -INFINITY;
    for (const float* c = choice + g * size; c < choice + (g + 1) * size; ++c) {
      second = std::max(second, std::min(best, *c));
      best = std::max(best, *c);
    }
    groups.score[static_cast<size_t>(g)] = size > 1 ? best + second : best;
  }
  cpu::best_experts(groups.score.data(), spec.groups, spec.top_groups, groups.best.data());
  for (const int32_t g : groups.best) groups.kept[static_cast<size_t>(g)] = true;
  for (int64_t g = 0; g < spec.groups; ++g) {
    if (!groups.kept[static_cast<size_t>(g)]) std::fill_n(choice + g * size, size, -INFINITY);
  }
}

}  // namespace

void CpuBackend::execute(const SigmoidTopKForward& op, const Tensor& scratch) {
  if (op.logits.dtype() != DType::f32) {
    RefBackend::execute(op, scratch);
    return;
  }
  const int64_t num_experts = op.logits.dim(1);
  const int64_t top_k = op.experts.dim(1);
  pool_.run_ranges(op.logits.dim(0), kTokens, [&](int64_t begin, int64_t end, int) {
    std::vector<float> choice(static_cast<size_t>(num_experts));
    Groups groups;
    for (int64_t t = begin; t < end; ++t) {
      float* scores = op.scores.data<float>() + t * op.scores.stride();
      float* weights = op.weights.data<float>() + t * op.weights.stride();
      int32_t* experts = op.experts.data<int32_t>() + t * top_k;
      cpu::sigmoid_scores(op.logits.data<float>() + t * op.logits.stride(), op.bias.data<float>(), scores,
                          choice.data(), num_experts);
      if (op.spec.top_groups < op.spec.groups) keep_best_groups(choice.data(), num_experts, op.spec, groups);
      cpu::best_experts(choice.data(), num_experts, top_k, experts);
      float sum = kTiny;
      for (int64_t j = 0; j < top_k; ++j) sum += scores[experts[j]];
      const float factor = static_cast<float>(op.spec.scale) / (op.spec.normalize ? sum : 1.0F);
      for (int64_t j = 0; j < top_k; ++j) weights[j] = scores[experts[j]] * factor;
    }
  });
}

// Of the chosen: ds_j = (scale dw_j - <dw, w>) / sum of s, or scale dw_j;  dlogits = ds s (1 - s), 0 elsewhere.
void CpuBackend::execute(const SigmoidTopKBackward& op, const Tensor& scratch) {
  if (op.dlogits.dtype() != DType::f32) {
    RefBackend::execute(op, scratch);
    return;
  }
  const int64_t num_experts = op.dlogits.dim(1);
  const int64_t top_k = op.experts.dim(1);
  const auto scale = static_cast<float>(op.spec.scale);
  pool_.run_ranges(op.dlogits.dim(0), kTokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float* scores = op.scores.data<float>() + t * op.scores.stride();
      const float* weights = op.weights.data<float>() + t * op.weights.stride();
      const float* dweights = op.dweights.data<float>() + t * op.dweights.stride();
      float* dlogits = op.dlogits.data<float>() + t * op.dlogits.stride();
      const int32_t* experts = op.experts.data<int32_t>() + t * top_k;
      float sum = kTiny;
      float inner = 0;
      for (int64_t j = 0; j < top_k; ++j) {
        require(experts[j] >= 0 && experts[j] < num_experts, "expert {} is not in [0, {})", experts[j], num_experts);
        sum += scores[experts[j]];
        inner += dweights[j] * weights[j];
      }
      std::fill_n(dlogits, num_experts, 0.0F);
      for (int64_t j = 0; j < top_k; ++j) {
        const float s = scores[experts[j]];
        const float dw = scale * dweights[j];
        dlogits[experts[j]] = (op.spec.normalize ? (dw - inner) / sum : dw) * s * (1.0F - s);
      }
    }
  });
}

}  // namespace sluice
