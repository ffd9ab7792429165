#include <algorithm>
#include <cmath>

#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

namespace {

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

// The product of a gate and an up value, and its derivatives.
struct Gated {
  double value, dgate, dup;
};
Gated gated(double gate, double up, const SwigluForm& form) {
  if (form.limit == 0) {
    const double s = sigmoid(gate);
    // silu' = s (1 + g (1 - s))
    return {gate * s * up, up * s * (1 + gate * (1 - s)), gate * s};
  }
  const double g = std::min(gate, form.limit), u = std::clamp(up, -form.limit, form.limit);
  const double s = sigmoid(form.alpha * g);
  return {g * s * (u + 1), gate > form.limit ? 0 : (u + 1) * s * (1 + form.alpha * g * (1 - s)),
          std::abs(up) > form.limit ? 0 : g * s};
}

}  // namespace

void RefBackend::execute(const SwigluForward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.h.dtype(), [&]<class T>(T) {
    const int64_t dim = op.h.dim(1);
    for (int64_t m = 0; m < op.h.dim(0); ++m) {
      const T* gate = row<T>(op.gate_up, m);
      const T* up = gate + dim;
      const double weight = op.weight ? load(op.weight.data<accumulator_t<T>>()[m]) : 1;
      T* h = row<T>(op.h, m);
      for (int64_t f = 0; f < dim; ++f) {
        store(h[f], gated(load(gate[f]), load(up[f]), op.form).value * weight);
      }
    }
  });
}

void RefBackend::execute(const SwigluBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.dh.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    const int64_t dim = op.dh.dim(1);
    for (int64_t m = 0; m < op.dh.dim(0); ++m) {
      const T* gate = row<T>(op.gate_up, m);
      const T* dh = row<T>(op.dh, m);
      T* dgate = row<T>(op.dgate_up, m);
      const double weight = op.weight ? load(op.weight.data<A>()[m]) : 1;
      double dweight = 0;
      for (int64_t f = 0; f < dim; ++f) {
        const Gated y = gated(load(gate[f]), load(gate[dim + f]), op.form);
        const double dy = load(dh[f]);
        dweight += dy * y.value;
        store(dgate[f], dy * weight * y.dgate);
        store(dgate[dim + f], dy * weight * y.dup);
      }
      if (op.dweight) store(op.dweight.data<A>()[m], dweight);
    }
  });
}

}  // namespace sluice
