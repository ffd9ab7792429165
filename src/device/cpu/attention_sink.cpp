#include "device/cpu/cpu_backend.h"
#include "device/cpu/head_kernels.h"
#include "device/cpu/storage.h"

namespace sluice {

using namespace cpu;

namespace {

// Tokens of a chunk, and of a partial sum.
constexpr int64_t kTokens = 64;

template <class T, class Op>
SinkRows<T> rows_of(const Op& op) {
  return {.heads = op.o.dim(1),
          .dim = op.o.dim(2),
          .sinks = op.sinks.template data<T>(),
          .o = op.o.template data<T>(),
          .o_stride = op.o.stride(),
          .lse = op.lse.template data<float>()};
}

}  // namespace

KernelSet CpuBackend::execute(const AttentionSink& op, const Tensor& scratch) {
  const bool done = dispatch_storage(op.o.dtype(), [&]<class T>(T) {
    const SinkRows<T> rows = rows_of<T>(op);
    pool_.run_ranges(op.o.dim(0), kTokens,
                     [&](int64_t begin, int64_t end, int) { head_kernels<T>().attention_sink(rows, begin, end); });
  });
  return done ? KernelSet(Kernel::simd) : RefBackend::execute(op, scratch);
}

KernelSet CpuBackend::execute(const AttentionSinkBackward& op, const Tensor& scratch) {
  const bool done = dispatch_storage(op.o.dtype(), [&]<class T>(T) {
    SinkRows<T> rows = rows_of<T>(op);
    rows.d_o = op.d_o.data<T>();
    rows.d_o_stride = op.d_o.stride();
    const int64_t num_tokens = op.o.dim(0);
    auto* parts = static_cast<float*>(scratch.raw());
    pool_.run_ranges(num_tokens, kTokens, [&](int64_t begin, int64_t end, int) {
      head_kernels<T>().attention_sink_backward(rows, begin, end, parts + begin / kTokens * rows.heads);
    });
    for (int64_t h = 0; h < rows.heads; ++h) {
      double sum = 0;
      for (int64_t begin = 0; begin < num_tokens; begin += kTokens) sum += parts[begin / kTokens * rows.heads + h];
      op.dsinks.data<float>()[h] += static_cast<float>(sum);
    }
  });
  return done ? KernelSet(Kernel::simd) : RefBackend::execute(op, scratch);
}

}  // namespace sluice
