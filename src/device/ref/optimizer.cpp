#include <algorithm>
#include <cmath>

#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

void RefBackend::execute(const AdamW& op, const Tensor& /*scratch*/) {
  const double* state = op.state.data<double>();
  const double rate = state[kLearningRate] * op.lr_scale, clip = state[kClipFactor];
  const double decay = state[kWeightDecay] * op.decay_scale;
  const double coupled = op.coupled_decay ? decay : 0, decoupled = op.coupled_decay ? 0 : decay;
  const double correction1 = state[kBiasCorrection1], correction2 = state[kBiasCorrection2];
  dispatch_float(op.w.dtype(), [&]<class W>(W) {
    dispatch_float(op.m.dtype(), [&]<class M>(M) {
      W* w = op.w.data<W>();
      M* m = op.m.data<M>();
      M* v = op.v.data<M>();
      const auto* g = op.g.data<accumulator_t<W>>();
      float* master = op.master ? op.master.data<float>() : nullptr;
      for (int64_t i = 0; i < op.w.dim(0); ++i) {
        const double old = master != nullptr ? load(master[i]) : load(w[i]);
        const double gradient = load(g[i]) * clip + coupled * old;
        const double first = op.beta1 * load(m[i]) + (1 - op.beta1) * gradient;
        const double second = op.beta2 * load(v[i]) + (1 - op.beta2) * gradient * gradient;
        const double step = first / correction1 / (std::sqrt(second / correction2) + op.eps) + decoupled * old;
        const double updated = old - rate * step;
        store(m[i], first);
        store(v[i], second);
        if (master != nullptr) {
          store(master[i], updated);
          store(w[i], load(master[i]));
          continue;
        }
        if constexpr (std::is_same_v<W, bf16>) {
          if (op.stochastic_rounding) {
            const int64_t at = op.first + i;
            const Philox::Block bits = rounding_bits(op.key, static_cast<uint64_t>(state[kStep]), at / 8);
            w[i] = round_stochastically(static_cast<float>(updated), bits, static_cast<int>(at % 8));
            continue;
          }
        }
        store(w[i], updated);
      }
    });
  });
}

void RefBackend::execute(const ClipFactor& op, const Tensor& /*scratch*/) {
  const double norm = std::sqrt(op.sum_squares.data<double>()[0]);
  op.state.data<double>()[kClipFactor] = std::min(1.0, op.max_norm / (norm + 1e-6));
}

}  // namespace sluice
