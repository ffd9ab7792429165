#include <algorithm>
#include <cmath>

#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

void RefBackend::execute(const AdamW& op, const Tensor& /*scratch*/) {
  const double* state = op.state.data<double>();
  const double rate = state[kLearningRate], clip = state[kClipFactor];
  const double correction1 = state[kBiasCorrection1], correction2 = state[kBiasCorrection2];
  dispatch_float(op.w.dtype(), [&]<class W>(W) {
    dispatch_float(op.m.dtype(), [&]<class M>(M) {
      W* w = op.w.data<W>();
      M* m = op.m.data<M>();
      M* v = op.v.data<M>();
      const auto* g = op.g.data<accumulator_t<W>>();
      for (int64_t i = 0; i < op.w.dim(0); ++i) {
        const double gradient = load(g[i]) * clip;
        const double first = op.beta1 * load(m[i]) + (1 - op.beta1) * gradient;
        const double second = op.beta2 * load(v[i]) + (1 - op.beta2) * gradient * gradient;
        const double step = first / correction1 / (std::sqrt(second / correction2) + op.eps) + op.decay * load(w[i]);
        store(w[i], load(w[i]) - rate * step);
        store(m[i], first);
        store(v[i], second);
      }
    });
  });
}

void RefBackend::execute(const ClipFactor& op, const Tensor& /*scratch*/) {
  const double norm = std::sqrt(op.sum_squares.data<double>()[0]);
  op.state.data<double>()[kClipFactor] = std::min(1.0, op.max_norm / (norm + 1e-6));
}

}  // namespace sluice
