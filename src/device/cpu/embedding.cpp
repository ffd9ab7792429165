#include <cstring>

#include "device/cpu/cpu_backend.h"
#include "device/cpu/row_kernels.h"

namespace sluice {

namespace {

int64_t checked_token(int64_t token, int64_t vocab) {
  require(token >= 0 && token < vocab, "token {} is not in [0, {})", token, vocab);
  return token;
}

}  // namespace

void CpuBackend::execute(const EmbeddingForward& op, const Tensor& scratch) {
  if (op.y.dtype() != DType::f32) {
    RefBackend::execute(op, scratch);
    return;
  }
  constexpr int64_t kRows = 64;
  const auto* tokens = op.tokens.data<int32_t>();
  pool_.run_ranges(op.y.dim(0), kRows, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      std::memcpy(op.y.data<float>() + t * op.y.stride(),
                  op.w.data<float>() + checked_token(tokens[t], op.w.dim(0)) * op.w.stride(),
                  static_cast<size_t>(op.y.dim(1)) * sizeof(float));
    }
  });
}

// Each chunk owns a range of columns and adds to it in token order.
void CpuBackend::execute(const EmbeddingBackward& op, const Tensor& scratch) {
  if (op.dy.dtype() != DType::f32 || op.dw.dtype() != DType::f32) {
    RefBackend::execute(op, scratch);
    return;
  }
  constexpr int64_t kColumns = 128;
  const auto* tokens = op.tokens.data<int32_t>();
  pool_.run_ranges(op.dy.dim(1), kColumns, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = 0; t < op.dy.dim(0); ++t) {
      cpu::add(op.dw.data<float>() + checked_token(tokens[t], op.dw.dim(0)) * op.dw.stride() + begin,
               op.dy.data<float>() + t * op.dy.stride() + begin, end - begin);
    }
  });
}

}  // namespace sluice
