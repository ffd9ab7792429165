#include <cmath>

#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

namespace {

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
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
        const double g = load(gate[f]);
        store(h[f], g * sigmoid(g) * load(up[f]) * weight);
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
        const double g = load(gate[f]), u = load(gate[dim + f]), dy = load(dh[f]);
        const double s = sigmoid(g);
        dweight += dy * g * s * u;
        // silu' = s (1 + g (1 - s))
        store(dgate[f], dy * weight * u * s * (1 + g * (1 - s)));
        store(dgate[dim + f], dy * weight * g * s);
      }
      if (op.dweight) store(op.dweight.data<A>()[m], dweight);
    }
  });
}

}  // namespace sluice
