#include <algorithm>
#include <array>

#include "device/cpu/cpu_backend.h"
#include "device/cpu/row_kernels.h"

namespace sluice {

namespace {

// Elements of a chunk, and of the pieces in which bf16 is widened on the stack.
constexpr int64_t kGrain = 8192;
constexpr int64_t kPiece = 1024;

// n elements as f32: themselves, or widened into a buffer; then what has become of them, stored.
class Widened {
 public:
  float* load(float* x, int64_t /*n*/) { return x; }
  float* load(const bf16* x, int64_t n) {
    std::transform(x, x + n, held_.begin(), [](bf16 value) { return static_cast<float>(value); });
    return held_.data();
  }
  void store(float* /*x*/, int64_t /*n*/) const {}
  void store(bf16* x, int64_t n) const { round(held_.data(), x, n); }

  static void round(const float* from, bf16* to, int64_t n) {
    std::transform(from, from + n, to, [](float value) { return bf16(value); });
  }
  // Elements first, first + 1, ... of what the operation calls so.
  void round_stochastically(const AdamW& op, uint64_t step, int64_t first, bf16* to, int64_t n) const {
    Philox::Block bits{};
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = first + i;
      if (i == 0 || at % 8 == 0) bits = rounding_bits(op.key, step, at / 8);
      to[i] = sluice::round_stochastically(held_[static_cast<size_t>(i)], bits, static_cast<int>(at % 8));
    }
  }

 private:
  std::array<float, kPiece> held_;
};

template <class W, class M>
void step_range(const AdamW& op, const cpu::AdamWStep& step, int64_t begin, int64_t end) {
  const auto number = static_cast<uint64_t>(op.state.data<double>()[kStep]);
  Widened weights, first, second;
  for (int64_t at = begin; at < end; at += kPiece) {
    const int64_t n = std::min(kPiece, end - at);
    W* w = op.w.data<W>() + at;
    M* m = op.m.data<M>() + at;
    M* v = op.v.data<M>() + at;
    float* master = op.master ? op.master.data<float>() + at : nullptr;
    cpu::adamw(step, master != nullptr ? master : weights.load(w, n), first.load(m, n), second.load(v, n),
               op.g.data<float>() + at, n);
    first.store(m, n);
    second.store(v, n);
    if constexpr (std::is_same_v<W, bf16>) {
      if (master != nullptr) {
        Widened::round(master, w, n);
      } else if (op.stochastic_rounding) {
        weights.round_stochastically(op, number, op.first + at, w, n);
      } else {
        weights.store(w, n);
      }
    }
  }
}

}  // namespace

void CpuBackend::execute(const AdamW& op, const Tensor& scratch) {
  if (op.w.dtype() == DType::f64 || op.m.dtype() == DType::f64) {
    RefBackend::execute(op, scratch);
    return;
  }
  const auto* state = op.state.data<double>();
  const double rate = state[kLearningRate] * op.lr_scale, decay = state[kWeightDecay] * op.decay_scale;
  const cpu::AdamWStep step{.beta1 = static_cast<float>(op.beta1),
                            .beta2 = static_cast<float>(op.beta2),
                            .new1 = static_cast<float>(1 - op.beta1),
                            .new2 = static_cast<float>(1 - op.beta2),
                            .eps = static_cast<float>(op.eps),
                            .coupled = static_cast<float>(op.coupled_decay ? decay : 0),
                            .decoupled = static_cast<float>(op.coupled_decay ? 0 : rate * decay),
                            .clip = static_cast<float>(state[kClipFactor]),
                            .rate = static_cast<float>(rate / state[kBiasCorrection1]),
                            .inverse_correction2 = static_cast<float>(1 / state[kBiasCorrection2])};
  dispatch_float(op.w.dtype(), [&]<class W>(W) {
    dispatch_float(op.m.dtype(), [&]<class M>(M) {
      if constexpr (sizeof(W) <= 4 && sizeof(M) <= 4) {
        pool_.run_ranges(op.w.dim(0), kGrain,
                         [&](int64_t begin, int64_t end, int) { step_range<W, M>(op, step, begin, end); });
      }
    });
  });
}

}  // namespace sluice
