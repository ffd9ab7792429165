#include <algorithm>
#include <cmath>

#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

KernelSet RefBackend::execute(const AttentionSink& op, const Tensor& /*scratch*/) {
  dispatch_float(op.o.dtype(), [&]<class T>(T) {
    const int64_t heads = op.o.dim(1), dim = op.o.dim(2);
    for (int64_t t = 0; t < op.o.dim(0); ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        auto& lse = op.lse.data<accumulator_t<T>>()[t * heads + h];
        const double before = load(lse), sink = load(op.sinks.data<T>()[h]), most = std::max(before, sink);
        const double after = most + std::log(std::exp(before - most) + std::exp(sink - most));
        T* o = row<T>(op.o, t) + h * dim;
        for (int64_t i = 0; i < dim; ++i) store(o[i], load(o[i]) * std::exp(before - after));
        store(lse, after);
      }
    }
  });
  return Kernel::reference;
}

KernelSet RefBackend::execute(const AttentionSinkBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.o.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    const int64_t heads = op.o.dim(1), dim = op.o.dim(2);
    for (int64_t h = 0; h < heads; ++h) {
      double sum = 0;
      for (int64_t t = 0; t < op.o.dim(0); ++t) {
        const T* o = row<T>(op.o, t) + h * dim;
        const T* d_o = row<T>(op.d_o, t) + h * dim;
        double inner = 0;
        for (int64_t i = 0; i < dim; ++i) inner += load(o[i]) * load(d_o[i]);
        sum -= std::exp(load(op.sinks.data<T>()[h]) - load(op.lse.data<A>()[t * heads + h])) * inner;
      }
      A& dsink = op.dsinks.data<A>()[h];
      store(dsink, load(dsink) + sum);
    }
  });
  return Kernel::reference;
}

}  // namespace sluice
