#include "device/cpu/cpu_backend.h"
#include "device/cpu/head_kernels.h"

namespace sluice {

namespace {

// Tokens of a chunk, and of a partial sum.
constexpr int64_t kTokens = 64;

template <class Op>
cpu::SinkRows rows_of(const Op& op) {
  return {.heads = op.o.dim(1),
          .dim = op.o.dim(2),
          .sinks = op.sinks.template data<float>(),
          .o = op.o.template data<float>(),
          .o_stride = op.o.stride(),
          .lse = op.lse.template data<float>()};
}

}  // namespace

KernelSet CpuBackend::execute(const AttentionSink& op, const Tensor& scratch) {
  if (op.o.dtype() != DType::f32) return RefBackend::execute(op, scratch);
  const cpu::SinkRows rows = rows_of(op);
  pool_.run_ranges(op.o.dim(0), kTokens, [&](int64_t begin, int64_t end, int) { attention_sink(rows, begin, end); });
  return Kernel::simd;
}

KernelSet CpuBackend::execute(const AttentionSinkBackward& op, const Tensor& scratch) {
  if (op.o.dtype() != DType::f32) return RefBackend::execute(op, scratch);
  cpu::SinkRows rows = rows_of(op);
  rows.d_o = op.d_o.data<float>();
  rows.d_o_stride = op.d_o.stride();
  const int64_t num_tokens = op.o.dim(0);
  auto* parts = static_cast<float*>(scratch.raw());
  pool_.run_ranges(num_tokens, kTokens, [&](int64_t begin, int64_t end, int) {
    attention_sink_backward(rows, begin, end, parts + begin / kTokens * rows.heads);
  });
  for (int64_t h = 0; h < rows.heads; ++h) {
    double sum = 0;
    for (int64_t begin = 0; begin < num_tokens; begin += kTokens) sum += parts[begin / kTokens * rows.heads + h];
    op.dsinks.data<float>()[h] += static_cast<float>(sum);
  }
  return Kernel::simd;
}

}  // namespace sluice
