#include <cstring>

#include "device/cpu/cpu_backend.h"
#include "device/cpu/storage.h"
#include "device/cpu/stream_kernels.h"

namespace sluice {

namespace {

int64_t checked_token(int64_t token, int64_t vocab) {
  require(token >= 0 && token < vocab, "token {} is not in [0, {})", token, vocab);
  return token;
}

}  // namespace

void CpuBackend::execute(const EmbeddingForward& op, const Tensor& /*scratch*/) {
  constexpr int64_t kRows = 64;
  const auto size = static_cast<int64_t>(size_of(op.y.dtype()));
  const auto* tokens = op.tokens.data<int32_t>();
  pool_.run_ranges(op.y.dim(0), kRows, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      std::memcpy(static_cast<char*>(op.y.raw()) + t * op.y.stride() * size,
                  static_cast<const char*>(op.w.raw()) + checked_token(tokens[t], op.w.dim(0)) * op.w.stride() * size,
                  static_cast<size_t>(op.y.dim(1) * size));
    }
  });
}

// Each chunk owns a range of columns and adds to it in token order.
void CpuBackend::execute(const EmbeddingBackward& op, const Tensor& scratch) {
  const bool done = cpu::dispatch_storage(op.dy.dtype(), [&]<class T>(T) {
    constexpr int64_t kColumns = 128;
    const auto add = cpu::stream_kernels<T>().add_to_f32;
    const auto* tokens = op.tokens.data<int32_t>();
    pool_.run_ranges(op.dy.dim(1), kColumns, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = 0; t < op.dy.dim(0); ++t) {
        add(op.dw.data<float>() + checked_token(tokens[t], op.dw.dim(0)) * op.dw.stride() + begin,
            op.dy.data<T>() + t * op.dy.stride() + begin, end - begin);
      }
    });
  });
  if (!done) RefBackend::execute(op, scratch);
}

}  // namespace sluice
