#include <algorithm>
#include <array>

#include "device/cpu/cpu_backend.h"
#include "device/cpu/row_kernels.h"

namespace sluice {

namespace {

// Elements of a chunk, and of the pieces in which bf16 moments are widened on the stack.
constexpr int64_t kGrain = 8192;
constexpr int64_t kPiece = 1024;

template <class M>
void step_piece(const cpu::AdamWStep& step, float* w, M* m, M* v, const float* g, int64_t n) {
  if constexpr (std::is_same_v<M, float>) {
    cpu::adamw(step, w, m, v, g, n);
  } else {
    std::array<float, kPiece> first;
    std::array<float, kPiece> second;
    for (int64_t begin = 0; begin < n; begin += kPiece) {
      const int64_t count = std::min(kPiece, n - begin);
      const auto widen = [](M x) { return static_cast<float>(x); };
      std::transform(m + begin, m + begin + count, first.begin(), widen);
      std::transform(v + begin, v + begin + count, second.begin(), widen);
      cpu::adamw(step, w + begin, first.data(), second.data(), g + begin, count);
      const auto narrow = [](float x) { return M(x); };
      std::transform(first.begin(), first.begin() + count, m + begin, narrow);
      std::transform(second.begin(), second.begin() + count, v + begin, narrow);
    }
  }
}

}  // namespace

void CpuBackend::execute(const AdamW& op, const Tensor& scratch) {
  if (op.w.dtype() != DType::f32 || op.m.dtype() == DType::f64) {
    RefBackend::execute(op, scratch);
    return;
  }
  const auto* state = op.state.data<double>();
  const cpu::AdamWStep step{.beta1 = static_cast<float>(op.beta1),
                            .beta2 = static_cast<float>(op.beta2),
                            .new1 = static_cast<float>(1 - op.beta1),
                            .new2 = static_cast<float>(1 - op.beta2),
                            .eps = static_cast<float>(op.eps),
                            .decay = static_cast<float>(state[kLearningRate] * op.decay),
                            .clip = static_cast<float>(state[kClipFactor]),
                            .rate = static_cast<float>(state[kLearningRate] / state[kBiasCorrection1]),
                            .inverse_correction2 = static_cast<float>(1 / state[kBiasCorrection2])};
  const auto run = [&]<class M>(M) {
    pool_.run_ranges(op.w.dim(0), kGrain, [&](int64_t begin, int64_t end, int) {
      step_piece(step, op.w.data<float>() + begin, op.m.data<M>() + begin, op.v.data<M>() + begin,
                 op.g.data<float>() + begin, end - begin);
    });
  };
  op.m.dtype() == DType::f32 ? run(float{}) : run(bf16{});
}

}  // namespace sluice
