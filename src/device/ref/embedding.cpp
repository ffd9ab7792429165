#include <algorithm>

#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

void RefBackend::execute(const EmbeddingForward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.y.dtype(), [&]<class T>(T) {
    for (int64_t t = 0; t < op.y.dim(0); ++t) {
      const int64_t token = checked("token", op.tokens.data<int32_t>()[t], op.w.dim(0));
      std::copy_n(row<T>(op.w, token), op.y.dim(1), row<T>(op.y, t));
    }
  });
}

void RefBackend::execute(const EmbeddingBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.dy.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    for (int64_t t = 0; t < op.dy.dim(0); ++t) {
      const int64_t token = checked("token", op.tokens.data<int32_t>()[t], op.dw.dim(0));
      const T* dy = row<T>(op.dy, t);
      A* dw = row<A>(op.dw, token);
      for (int64_t d = 0; d < op.dy.dim(1); ++d) dw[d] += static_cast<A>(dy[d]);
    }
  });
}

}  // namespace sluice
