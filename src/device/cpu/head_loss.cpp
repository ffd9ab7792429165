#include <algorithm>

#include "device/cpu/cpu_backend.h"
#include "device/cpu/row_kernels.h"
#include "device/cpu/scratch.h"
#include "device/cpu/stream_kernels.h"
#include "device/cpu/tiles.h"

namespace sluice {

using namespace cpu;

KernelSet CpuBackend::execute(const HeadLoss& op, const Tensor& scratch) {
  if (op.x.dtype() == DType::f64) return RefBackend::execute(op, scratch);
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
  // Gradients of the logits have the type of x. Those of bf16 begin where the row's logits did.
  const DType type = op.x.dtype();
  const bool rounds = type == DType::bf16;
  const auto round_row = stream_kernels<bf16>().from_f32;
  const Factor w{op.w.raw(), type, op.w.stride()};
  const Factor gradients{logits, type, rounds ? 2 * stride : stride};
  const auto transposed = [](Factor factor) {
    factor.transposed = true;
    return factor;
  };
  for (int64_t begin = 0; begin < op.x.dim(0); begin += chunk) {
    const int64_t rows = std::min(chunk, op.x.dim(0) - begin);
    const Factor x = Factor{op.x.raw(), type, op.x.stride()}.at(begin, 0);
    const auto multiply = [&](int64_t m, int64_t n, int64_t k, Factor a, Factor b, Product c) {
      run_gemm(pool_, {.m = m, .n = n, .k = k, .a = a, .b = b, .c = c, .bf16_dot = bf16_dot_}, panels, bytes);
    };
    multiply(rows, vocab, dim, x, transposed(w), {logits, DType::f32, stride});
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
        if (op.dw && rounds) round_row(reinterpret_cast<bf16*>(row), row, vocab);
      }
    });
    if (!op.dw) continue;
    multiply(rows, dim, vocab, gradients, w, Product{op.dx.raw(), type, op.dx.stride()}.at(begin, 0));
    multiply(vocab, dim, rows, transposed(gradients), x, {op.dw.raw(), DType::f32, op.dw.stride(), true});
  }
  return Kernel::simd;
}

}  // namespace sluice
