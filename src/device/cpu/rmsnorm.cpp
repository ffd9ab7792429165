#include "device/cpu/cpu_backend.h"
#include "device/cpu/row_kernels.h"
#include "device/cpu/scratch.h"

namespace sluice {

using namespace cpu;

namespace {

// Elements a chunk aims at.
constexpr int64_t kGrain = 16384;

template <class T>
Vectors<T> vectors(const Tensor& t) {
  if (!t) return {};
  const bool per_head = t.rank() == 3;
  return {t.data<float>(), t.stride(), per_head ? t.dim(1) : 1, per_head ? t.dim(2) : t.dim(1)};
}

int64_t num_vectors(const Tensor& x) {
  return x.rank() == 3 ? x.dim(0) * x.dim(1) : x.dim(0);
}

int64_t grain(int64_t dim) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(dim, 1));
}

}  // namespace

KernelSet CpuBackend::execute(const RmsNormForward& op, const Tensor& scratch) {
  if (op.x.dtype() != DType::f32) return RefBackend::execute(op, scratch);
  const NormForward rows{.y = vectors<float>(op.y),
                         .rstd = op.rstd.data<float>(),
                         .x = vectors<const float>(op.x),
                         .gamma = op.gamma.data<float>(),
                         .eps = static_cast<float>(op.eps),
                         .sum = {},
                         .add = {}};
  pool_.run_ranges(num_vectors(op.x), grain(op.gamma.dim(0)),
                   [&](int64_t begin, int64_t end, int) { norm_forward(rows, begin, end); });
  return Kernel::simd;
}

KernelSet CpuBackend::execute(const ResidualRmsNormForward& op, const Tensor& scratch) {
  if (op.x.dtype() != DType::f32) return RefBackend::execute(op, scratch);
  const NormForward rows{.y = vectors<float>(op.y),
                         .rstd = op.rstd.data<float>(),
                         .x = vectors<const float>(op.x),
                         .gamma = op.gamma.data<float>(),
                         .eps = static_cast<float>(op.eps),
                         .sum = vectors<float>(op.sum),
                         .add = vectors<const float>(op.add)};
  pool_.run_ranges(num_vectors(op.x), grain(op.gamma.dim(0)),
                   [&](int64_t begin, int64_t end, int) { norm_forward(rows, begin, end); });
  return Kernel::simd;
}

KernelSet CpuBackend::execute(const RmsNormBackward& op, const Tensor& scratch) {
  if (op.x.dtype() != DType::f32) return RefBackend::execute(op, scratch);
  const NormBackward rows{.dx = vectors<float>(op.dx),
                          .dy = vectors<const float>(op.dy),
                          .x = vectors<const float>(op.x),
                          .rstd = op.rstd.data<float>(),
                          .gamma = op.gamma.data<float>(),
                          .residual = vectors<const float>(op.residual)};
  const int64_t dim = op.gamma.dim(0);
  auto* parts = static_cast<float*>(scratch.raw());
  const int64_t count = num_vectors(op.x);
  pool_.run_ranges(count, kNormRowsPerPart, [&](int64_t begin, int64_t end, int) {
    norm_backward(rows, begin, end, parts + begin / kNormRowsPerPart * dim);
  });
  for (int64_t begin = 0; begin < count; begin += kNormRowsPerPart, parts += dim) {
    add(op.dgamma.data<float>(), parts, dim);
  }
  return Kernel::simd;
}

}  // namespace sluice
