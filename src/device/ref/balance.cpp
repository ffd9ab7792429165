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

// g_e = coef grad_scale E / slots load_e;   dlogits += p (g - sum p g) [(1 - s), p = s / sum s]
void RefBackend::execute(const BalanceLossBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.dlogits.dtype(), [&]<class T>(T) {
    const int64_t num_tokens = op.dlogits.dim(0), num_experts = op.dlogits.dim(1);
    const double factor =
        op.coef * op.grad_scale.data<double>()[0] * static_cast<double>(num_experts) / static_cast<double>(op.slots);
    for (int64_t t = 0; t < num_tokens; ++t) {
      const T* probs = row<T>(op.probs, t);
      const T* loads = op.load.data<T>() + t / op.run_tokens() * num_experts;
      T* dlogits = row<T>(op.dlogits, t);
      double sum = 0, inner = 0;
      for (int64_t e = 0; e < num_experts; ++e) {
        sum += load(probs[e]);
        inner += load(probs[e]) * factor * load(loads[e]);
      }
      if (!op.sigmoid) sum = 1;
      inner /= sum;
      for (int64_t e = 0; e < num_experts; ++e) {
        const double slope = load(probs[e]) / sum * (op.sigmoid ? 1 - load(probs[e]) : 1);
        store(dlogits[e], load(dlogits[e]) + slope * (factor * load(loads[e]) - inner));
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

void RefBackend::execute(const LoadShare& op, const Tensor& /*scratch*/) {
  dispatch_float(op.share.dtype(), [&]<class T>(T) {
    for (int64_t e = 0; e < op.share.dim(0); ++e) {
      store(op.share.data<T>()[e], load(op.load.data<T>()[e]) / op.slots);
    }
  });
}

}  // namespace sluice
