#include <vector>

#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

void RefBackend::execute(const ExpertLoad& op, const Tensor& /*scratch*/) {
  dispatch_float(op.load.dtype(), [&]<class T>(T) {
    T* counts = op.load.data<T>();
    const int32_t* experts = op.experts.data<int32_t>();
    for (int64_t i = 0; i < op.experts.numel(); ++i) {
      T& count = counts[checked("expert", experts[i], op.load.dim(0))];
      store(count, load(count) + 1);
    }
  });
}

// g_e = coef grad_scale E / (K T) load_e;   dlogits += p (g - sum p g)
void RefBackend::execute(const BalanceLossBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.dlogits.dtype(), [&]<class T>(T) {
    const int64_t num_tokens = op.dlogits.dim(0), num_experts = op.dlogits.dim(1);
    const double factor = op.coef * op.grad_scale.data<double>()[0] * static_cast<double>(num_experts) /
                          static_cast<double>(op.top_k * num_tokens);
    std::vector<double> g(static_cast<size_t>(num_experts));
    for (int64_t e = 0; e < num_experts; ++e) g[static_cast<size_t>(e)] = factor * load(op.load.data<T>()[e]);
    for (int64_t t = 0; t < num_tokens; ++t) {
      const T* probs = row<T>(op.probs, t);
      T* dlogits = row<T>(op.dlogits, t);
      double inner = 0;
      for (int64_t e = 0; e < num_experts; ++e) inner += load(probs[e]) * g[static_cast<size_t>(e)];
      for (int64_t e = 0; e < num_experts; ++e) {
        store(dlogits[e], load(dlogits[e]) + load(probs[e]) * (g[static_cast<size_t>(e)] - inner));
      }
    }
  });
}

void RefBackend::execute(const BalanceBias& op, const Tensor& /*scratch*/) {
  dispatch_float(op.bias.dtype(), [&]<class T>(T) {
    T* bias = op.bias.data<T>();
    for (int64_t e = 0; e < op.bias.dim(0); ++e) {
      const double missing = op.mean - load(op.load.data<T>()[e]);
      store(bias[e], load(bias[e]) + (missing > 0 ? op.rate : missing < 0 ? -op.rate : 0));
    }
  });
}

}  // namespace sluice
