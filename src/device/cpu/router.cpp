#include "device/cpu/cpu_backend.h"
#include "device/cpu/row_kernels.h"
#include "device/cpu/top_k.h"

namespace sluice {

namespace {

constexpr int64_t kTokens = 256;

}  // namespace

void CpuBackend::execute(const SoftmaxTopKForward& op, const Tensor& scratch) {
  if (op.logits.dtype() != DType::f32) {
    RefBackend::execute(op, scratch);
    return;
  }
  const int64_t num_experts = op.logits.dim(1);
  const int64_t top_k = op.experts.dim(1);
  pool_.run_ranges(op.logits.dim(0), kTokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float* logits = op.logits.data<float>() + t * op.logits.stride();
      float* probs = op.probs.data<float>() + t * op.probs.stride();
      float* weights = op.weights.data<float>() + t * op.weights.stride();
      int32_t* experts = op.experts.data<int32_t>() + t * top_k;
      cpu::best_experts(logits, num_experts, top_k, experts);
      cpu::softmax(logits, probs, num_experts);
      float chosen = 0;
      for (int64_t j = 0; j < top_k; ++j) chosen += probs[experts[j]];
      if (!op.renormalize) chosen = 1;
      for (int64_t j = 0; j < top_k; ++j) weights[j] = probs[experts[j]] / chosen;
    }
  });
}

// With s the chosen probabilities' sum, w = p / s:  g_j = (dw_j - sum dw w) / s for chosen j, else 0;
// with w = p:  g_j = dw_j.  dlogits = p (g - sum p g).
void CpuBackend::execute(const SoftmaxTopKBackward& op, const Tensor& scratch) {
  if (op.dlogits.dtype() != DType::f32) {
    RefBackend::execute(op, scratch);
    return;
  }
  const int64_t num_experts = op.dlogits.dim(1);
  const int64_t top_k = op.experts.dim(1);
  pool_.run_ranges(op.dlogits.dim(0), kTokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float* probs = op.probs.data<float>() + t * op.probs.stride();
      const float* weights = op.weights.data<float>() + t * op.weights.stride();
      const float* dweights = op.dweights.data<float>() + t * op.dweights.stride();
      float* dlogits = op.dlogits.data<float>() + t * op.dlogits.stride();
      const int32_t* experts = op.experts.data<int32_t>() + t * top_k;
      float chosen = 0;
      float mean = 0;
      for (int64_t j = 0; j < top_k; ++j) {
        require(experts[j] >= 0 && experts[j] < num_experts, "expert {} is not in [0, {})", experts[j], num_experts);
        chosen += probs[experts[j]];
        mean += dweights[j] * weights[j];
      }
      if (!op.renormalize) {
        chosen = 1;
        mean = 0;
      }
      float inner = 0;
      for (int64_t j = 0; j < top_k; ++j) inner += probs[experts[j]] * ((dweights[j] - mean) / chosen);
      for (int64_t e = 0; e < num_experts; ++e) dlogits[e] = -probs[e] * inner;
      for (int64_t j = 0; j < top_k; ++j) dlogits[experts[j]] += probs[experts[j]] * ((dweights[j] - mean) / chosen);
    }
  });
}

void CpuBackend::execute(const RouterZBackward& op, const Tensor& scratch) {
  if (op.dlogits.dtype() != DType::f32) {
    RefBackend::execute(op, scratch);
    return;
  }
  const auto factor = static_cast<float>(2 * op.coef * op.grad_scale.data<double>()[0]);
  pool_.run_ranges(op.logits.dim(0), kTokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      cpu::add_z_gradient(op.dlogits.data<float>() + t * op.dlogits.stride(),
                          op.logits.data<float>() + t * op.logits.stride(), op.logits.dim(1), factor);
    }
  });
}

}  // namespace sluice
