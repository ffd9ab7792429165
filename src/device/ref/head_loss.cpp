#include <algorithm>
#include <cmath>

#include "device/cpu/scratch.h"
#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

namespace {

// Turns a row of logits into dlogits and returns its loss.
template <class A>
double cross_entropy(A* logits, int64_t vocab, int64_t label, double grad_scale, double z_coef) {
  double most = -INFINITY, sum = 0;
  for (int64_t v = 0; v < vocab; ++v) most = std::max(most, load(logits[v]));
  for (int64_t v = 0; v < vocab; ++v) sum += std::exp(load(logits[v]) - most);
  const double lse = most + std::log(sum);
  const double loss = lse - load(logits[label]);
  const double of_softmax = z_coef == 0 ? 1 : 1 + 2 * z_coef * lse;
  for (int64_t v = 0; v < vocab; ++v) {
    store(logits[v], (std::exp(load(logits[v]) - lse) * of_softmax - (v == label ? 1 : 0)) * grad_scale);
  }
  return loss;
}

}  // namespace

KernelSet RefBackend::execute(const HeadLoss& op, const Tensor& scratch) {
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    const int64_t vocab = op.w.dim(0), dim = op.x.dim(1), chunk = cpu::head_chunk_rows(op);
    const Matrix<A> logits{static_cast<A*>(scratch.raw()), vocab, 1};
    const Matrix<T> w = matrix<T>(op.w);
    const double grad_scale = op.grad_scale.data<double>()[0];
    for (int64_t begin = 0; begin < op.x.dim(0); begin += chunk) {
      const int64_t rows = std::min(chunk, op.x.dim(0) - begin);
      const Matrix<T> x = matrix<T>(op.x.rows(begin, rows));
      multiply(logits, x, w.transposed(), rows, vocab, dim, false);
      for (int64_t t = 0; t < rows; ++t) {
        const int32_t label = op.labels.data<int32_t>()[begin + t];
        A& loss = op.loss.data<A>()[begin + t];
        if (label == kIgnoredLabel) {
          loss = 0;
          std::fill_n(&logits(t, 0), vocab, A{0});
        } else {
          store(loss, cross_entropy(&logits(t, 0), vocab, checked("label", label, vocab), grad_scale, op.z_coef));
        }
      }
      if (!op.dw) continue;
      multiply(matrix<T>(op.dx.rows(begin, rows)), logits, w, rows, dim, vocab, false);
      multiply(matrix<A>(op.dw), logits.transposed(), x, vocab, dim, rows, true);
    }
  });
  return Kernel::reference;
}

}  // namespace sluice
