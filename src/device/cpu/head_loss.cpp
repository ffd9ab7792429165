#include <algorithm>

#include "device/cpu/cpu_backend.h"
#include "device/cpu/row_kernels.h"
#include "device/cpu/scratch.h"
#include "device/cpu/tiles.h"

namespace sluice {

using namespace cpu;

KernelSet CpuBackend::execute(const HeadLoss& op, const Tensor& scratch) {
  if (op.x.dtype() != DType::f32) return RefBackend::execute(op, scratch);
  const int64_t vocab = op.w.dim(0);
  const int64_t dim = op.x.dim(1);
  const int64_t chunk = head_chunk_rows(op);
  const size_t bytes = head_workspace(op);
  const auto scale = static_cast<float>(op.grad_scale.data<double>()[0]);
  const auto z_coef = static_cast<float>(op.z_coef);
  const auto* labels = op.labels.data<int32_t>();
  auto* losses = op.loss.data<float>();
  float* logits = static_cast<float*>(scratch.raw());
  const int64_t stride = head_logits_stride(op);
  const Tensor panels =
      scratch.rows(chunk * stride * int64_t{sizeof(float)}, static_cast<int64_t>(bytes) * pool_.threads());
  for (int64_t begin = 0; begin < op.x.dim(0); begin += chunk) {
    const int64_t rows = std::min(chunk, op.x.dim(0) - begin);
    const float* x = op.x.data<float>() + begin * op.x.stride();
    run_gemm(pool_,
             {.m = rows,
              .n = vocab,
              .k = dim,
              .a = x,
              .lda = op.x.stride(),
              .b = op.w.data<float>(),
              .ldb = op.w.stride(),
              .trans_b = true,
              .c = logits,
              .ldc = stride},
             panels, bytes);
    constexpr int64_t kRowsAtOnce = 8;
    pool_.run_ranges(rows, kRowsAtOnce, [&](int64_t first, int64_t last, int) {
      for (int64_t t = first; t < last; ++t) {
        const int32_t label = labels[begin + t];
        float* row = logits + t * stride;
        if (label == kIgnoredLabel) {
          losses[begin + t] = 0;
          if (op.dw) std::fill_n(row, vocab, 0.0F);
        } else {
          require(label >= 0 && label < vocab, "label {} is not in [0, {})", label, vocab);
          losses[begin + t] = cross_entropy(row, vocab, label, op.dw.defined(), scale, z_coef);
        }
      }
    });
    if (!op.dw) continue;
    run_gemm(pool_,
             {.m = rows,
              .n = dim,
              .k = vocab,
              .a = logits,
              .lda = stride,
              .b = op.w.data<float>(),
              .ldb = op.w.stride(),
              .c = op.dx.data<float>() + begin * op.dx.stride(),
              .ldc = op.dx.stride()},
             panels, bytes);
    run_gemm(pool_,
             {.m = vocab,
              .n = dim,
              .k = rows,
              .a = logits,
              .lda = stride,
              .trans_a = true,
              .b = x,
              .ldb = op.x.stride(),
              .c = op.dw.data<float>(),
              .ldc = op.dw.stride(),
              .accumulate = true},
             panels, bytes);
  }
  return Kernel::simd;
}

}  // namespace sluice
