#include "device/cpu/cpu_backend.h"
#include "device/cpu/row_kernels.h"
#include "device/cpu/scratch.h"
#include "device/cpu/storage.h"
#include "device/cpu/stream_kernels.h"

namespace sluice {

using namespace cpu;

namespace {

// Elements a chunk aims at.
constexpr int64_t kGrain = 16384;

template <class T>
Vectors<T> vectors(const Tensor& t) {
  if (!t) return {};
  const bool per_head = t.rank() == 3;
  return {t.data<std::remove_const_t<T>>(), t.stride(), per_head ? t.dim(1) : 1, per_head ? t.dim(2) : t.dim(1)};
}

int64_t num_vectors(const Tensor& x) {
  return x.rank() == 3 ? x.dim(0) * x.dim(1) : x.dim(0);
}

int64_t grain(int64_t dim) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(dim, 1));
}

// What both forms of the operation have.
template <class T, class Op>
NormForward<T> forward_rows(const Op& op) {
  return {.y = vectors<T>(op.y),
          .rstd = op.rstd.template data<float>(),
          .x = vectors<const T>(op.x),
          .gamma = op.gamma.template data<T>(),
          .eps = static_cast<float>(op.eps),
          .sum = {},
          .add = {}};
}

template <class T>
void run_forward(Pool& pool, const NormForward<T>& rows, int64_t count) {
  pool.run_ranges(count, grain(rows.x.dim),
                  [&](int64_t begin, int64_t end, int) { row_kernels<T>().norm_forward(rows, begin, end); });
}

}  // namespace

KernelSet CpuBackend::execute(const RmsNormForward& op, const Tensor& scratch) {
  const bool done =
      dispatch_storage(op.x.dtype(), [&]<class T>(T) { run_forward(pool_, forward_rows<T>(op), num_vectors(op.x)); });
  return done ? KernelSet(Kernel::simd) : RefBackend::execute(op, scratch);
}

KernelSet CpuBackend::execute(const ResidualRmsNormForward& op, const Tensor& scratch) {
  const bool done = dispatch_storage(op.x.dtype(), [&]<class T>(T) {
    NormForward<T> rows = forward_rows<T>(op);
    rows.sum = vectors<T>(op.sum);
    rows.add = vectors<const T>(op.add);
    run_forward(pool_, rows, num_vectors(op.x));
  });
  return done ? KernelSet(Kernel::simd) : RefBackend::execute(op, scratch);
}

KernelSet CpuBackend::execute(const RmsNormBackward& op, const Tensor& scratch) {
  const int64_t dim = op.gamma.dim(0);
  const int64_t count = num_vectors(op.x);
  const bool done = dispatch_storage(op.x.dtype(), [&]<class T>(T) {
    const NormBackward<T> rows{.dx = vectors<T>(op.dx),
                               .dy = vectors<const T>(op.dy),
                               .x = vectors<const T>(op.x),
                               .rstd = op.rstd.data<float>(),
                               .gamma = op.gamma.data<T>(),
                               .residual = vectors<const T>(op.residual)};
    auto* parts = static_cast<float*>(scratch.raw());
    pool_.run_ranges(count, kNormRowsPerPart, [&](int64_t begin, int64_t end, int) {
      row_kernels<T>().norm_backward(rows, begin, end, parts + begin / kNormRowsPerPart * dim);
    });
    for (int64_t begin = 0; begin < count; begin += kNormRowsPerPart, parts += dim) {
      stream_kernels<float>().add(op.dgamma.data<float>(), parts, dim);
    }
  });
  return done ? KernelSet(Kernel::simd) : RefBackend::execute(op, scratch);
}

}  // namespace sluice
