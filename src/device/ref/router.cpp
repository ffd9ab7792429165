#include <algorithm>
#include <cmath>
#include <vector>

#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

void RefBackend::execute(const SoftmaxTopKForward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.logits.dtype(), [&]<class T>(T) {
    const int64_t num_experts = op.logits.dim(1), top_k = op.experts.dim(1);
    std::vector<bool> taken(static_cast<size_t>(num_experts));
    for (int64_t t = 0; t < op.logits.dim(0); ++t) {
      const T* logits = row<T>(op.logits, t);
      T* probs = row<T>(op.probs, t);
      T* weights = row<T>(op.weights, t);
      int32_t* experts = op.experts.data<int32_t>() + t * top_k;
      double most = -INFINITY, sum = 0, chosen = 0;
      for (int64_t e = 0; e < num_experts; ++e) most = std::max(most, load(logits[e]));
      for (int64_t e = 0; e < num_experts; ++e) sum += std::exp(load(logits[e]) - most);
      for (int64_t e = 0; e < num_experts; ++e) store(probs[e], std::exp(load(logits[e]) - most) / sum);
      std::fill(taken.begin(), taken.end(), false);
      for (int64_t j = 0; j < top_k; ++j) {
        int64_t best = -1;
        for (int64_t e = 0; e < num_experts; ++e) {
          if (taken[static_cast<size_t>(e)]) continue;
          if (best < 0 || load(logits[e]) > load(logits[best])) best = e;
        }
        taken[static_cast<size_t>(best)] = true;
        experts[j] = static_cast<int32_t>(best);
        chosen += load(probs[best]);
      }
      for (int64_t j = 0; j < top_k; ++j) {
        store(weights[j], op.renormalize ? load(probs[experts[j]]) / chosen : load(probs[experts[j]]));
      }
    }
  });
}

// With s the chosen probabilities' sum, w = p / s:  g_j = (dw_j - sum dw w) / s for chosen j, else 0;
// with w = p:  g_j = dw_j.  dlogits = p (g - sum p g).
void RefBackend::execute(const SoftmaxTopKBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.dlogits.dtype(), [&]<class T>(T) {
    const int64_t num_experts = op.dlogits.dim(1), top_k = op.experts.dim(1);
    std::vector<double> g(static_cast<size_t>(num_experts));
    for (int64_t t = 0; t < op.dlogits.dim(0); ++t) {
      const T* probs = row<T>(op.probs, t);
      const T* weights = row<T>(op.weights, t);
      const T* dweights = row<T>(op.dweights, t);
      const int32_t* experts = op.experts.data<int32_t>() + t * top_k;
      double chosen = 0, mean = 0, inner = 0;
      for (int64_t j = 0; j < top_k; ++j) {
        chosen += load(probs[checked("expert", experts[j], num_experts)]);
        mean += load(dweights[j]) * load(weights[j]);
      }
      if (!op.renormalize) {
        chosen = 1;
        mean = 0;
      }
      std::fill(g.begin(), g.end(), 0);
      for (int64_t j = 0; j < top_k; ++j) g[static_cast<size_t>(experts[j])] = (load(dweights[j]) - mean) / chosen;
      for (int64_t e = 0; e < num_experts; ++e) inner += load(probs[e]) * g[static_cast<size_t>(e)];
      for (int64_t e = 0; e < num_experts; ++e) {
        store(row<T>(op.dlogits, t)[e], load(probs[e]) * (g[static_cast<size_t>(e)] - inner));
      }
    }
  });
}

// dlogits += 2 coef grad_scale lse softmax(logits)
void RefBackend::execute(const RouterZBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.dlogits.dtype(), [&]<class T>(T) {
    const double factor = 2 * op.coef * op.grad_scale.data<double>()[0];
    for (int64_t t = 0; t < op.logits.dim(0); ++t) {
      const T* logits = row<T>(op.logits, t);
      T* dlogits = row<T>(op.dlogits, t);
      double most = -INFINITY, sum = 0;
      for (int64_t e = 0; e < op.logits.dim(1); ++e) most = std::max(most, load(logits[e]));
      for (int64_t e = 0; e < op.logits.dim(1); ++e) sum += std::exp(load(logits[e]) - most);
      const double lse = most + std::log(sum);
      for (int64_t e = 0; e < op.logits.dim(1); ++e) {
        store(dlogits[e], load(dlogits[e]) + factor * lse * std::exp(load(logits[e]) - most) / sum);
      }
    }
  });
}

void RefBackend::execute(const ForcedGate& op, const Tensor& /*scratch*/) {
  dispatch_float(op.weights.dtype(), [&]<class T>(T) {
    std::vector<double> weights(static_cast<size_t>(op.gate.top_k));
    for (int64_t t = 0; t < op.experts.dim(0); ++t) {
      const int64_t id = op.sample_ids.data<int64_t>()[t / op.seq_len];
      const int64_t token = id * op.seq_len + t % op.seq_len;
      gate_experts(op.gate, token, op.experts.data<int32_t>() + t * op.gate.top_k);
      gate_weights(op.gate, token, weights.data());
      for (int64_t j = 0; j < op.gate.top_k; ++j) {
        store(row<T>(op.weights, t)[j], weights[static_cast<size_t>(j)]);
      }
    }
  });
}

}  // namespace sluice
