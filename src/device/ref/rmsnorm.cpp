#include <cmath>
#include <vector>

#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

namespace {

// Calls f(row t, head h, index of the statistic) for every normed vector.
template <class F>
void for_each_vector(const Tensor& x, F&& f) {
  const int64_t num_heads = x.rank() == 3 ? x.dim(1) : 1;
  for (int64_t t = 0; t < x.dim(0); ++t) {
    for (int64_t h = 0; h < num_heads; ++h) f(t, h, t * num_heads + h);
  }
}

// y = x rstd gamma, returns rstd
template <class T>
accumulator_t<T> norm(T* y, const T* x, const T* gamma, int64_t dim, double eps) {
  double squares = 0;
  for (int64_t d = 0; d < dim; ++d) squares += load(x[d]) * load(x[d]);
  const auto rstd = static_cast<accumulator_t<T>>(1 / std::sqrt(squares / static_cast<double>(dim) + eps));
  for (int64_t d = 0; d < dim; ++d) store(y[d], load(x[d]) * load(rstd) * load(gamma[d]));
  return rstd;
}

}  // namespace

KernelSet RefBackend::execute(const RmsNormForward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    const int64_t dim = op.gamma.dim(0);
    for_each_vector(op.x, [&](int64_t t, int64_t h, int64_t i) {
      op.rstd.data<accumulator_t<T>>()[i] = norm(row<T>(op.y, t) + h * dim, row<T>(op.x, t) + h * dim,
                                                 static_cast<const T*>(op.gamma.data<T>()), dim, op.eps);
    });
  });
  return Kernel::reference;
}

KernelSet RefBackend::execute(const RmsNormBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    const int64_t dim = op.gamma.dim(0);
    const T* gamma = op.gamma.data<T>();
    std::vector<double> dgamma(static_cast<size_t>(dim));
    for_each_vector(op.x, [&](int64_t t, int64_t h, int64_t i) {
      const T* x = row<T>(op.x, t) + h * dim;
      const T* dy = row<T>(op.dy, t) + h * dim;
      const T* residual = op.residual ? row<T>(op.residual, t) + h * dim : nullptr;
      T* dx = row<T>(op.dx, t) + h * dim;
      const double rstd = load(op.rstd.data<accumulator_t<T>>()[i]);
      // mean of g xhat with g = dy gamma, xhat = x rstd
      double mean = 0;
      for (int64_t d = 0; d < dim; ++d) {
        const double xhat = load(x[d]) * rstd;
        mean += load(dy[d]) * load(gamma[d]) * xhat;
        dgamma[static_cast<size_t>(d)] += load(dy[d]) * xhat;
      }
      mean /= static_cast<double>(dim);
      for (int64_t d = 0; d < dim; ++d) {
        const double own = rstd * (load(dy[d]) * load(gamma[d]) - load(x[d]) * rstd * mean);
        store(dx[d], (residual != nullptr ? load(residual[d]) : 0) + own);
      }
    });
    auto* total = op.dgamma.data<accumulator_t<T>>();
    for (int64_t d = 0; d < dim; ++d) store(total[d], load(total[d]) + dgamma[static_cast<size_t>(d)]);
  });
  return Kernel::reference;
}

KernelSet RefBackend::execute(const ResidualRmsNormForward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    const int64_t dim = op.gamma.dim(0);
    for (int64_t t = 0; t < op.x.dim(0); ++t) {
      const T* x = row<T>(op.x, t);
      const T* add = row<T>(op.add, t);
      T* sum = row<T>(op.sum, t);
      for (int64_t d = 0; d < dim; ++d) store(sum[d], load(x[d]) + load(add[d]));
      // The norm is of the rounded sum: what backward will read.
      op.rstd.data<accumulator_t<T>>()[t] =
          norm(row<T>(op.y, t), static_cast<const T*>(sum), static_cast<const T*>(op.gamma.data<T>()), dim, op.eps);
    }
  });
  return Kernel::reference;
}

}  // namespace sluice
