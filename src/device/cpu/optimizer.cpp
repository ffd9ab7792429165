#include <algorithm>
#include <array>

#include "device/cpu/adamw_kernels.h"
#include "device/cpu/cpu_backend.h"
#include "device/cpu/storage.h"

namespace sluice {

namespace {

// Elements of a chunk, and of the pieces for which random bits are drawn at a time.
constexpr int64_t kGrain = 8192;
constexpr int64_t kPiece = 1024;
constexpr int64_t kBlock = 8;  // elements that share a draw

template <class W, class M>
void step_range(const AdamW& op, const cpu::AdamWStep& step, int64_t begin, int64_t end) {
  const bool random = std::is_same_v<W, bf16> && op.stochastic_rounding;
  const auto number = static_cast<uint64_t>(op.state.data<double>()[kStep]);
  std::array<uint16_t, kPiece + kBlock> bits;  // blocks from that of a piece's first element on
  for (int64_t at = begin; at < end; at += kPiece) {
    const int64_t n = std::min(kPiece, end - at);
    const int64_t first = op.first + at, into = first % kBlock;
    if (random) {
      cpu::rounding_bits(bits.data(), op.key, number, first / kBlock, (into + n + kBlock - 1) / kBlock);
    }
    cpu::adamw(step,
               cpu::AdamWRange<W, M>{.w = op.w.data<W>() + at,
                                     .master = op.master ? op.master.data<float>() + at : nullptr,
                                     .m = op.m.data<M>() + at,
                                     .v = op.v.data<M>() + at,
                                     .g = op.g.data<float>() + at,
                                     .random = random ? bits.data() + into : nullptr},
               n);
  }
}

}  // namespace

void CpuBackend::execute(const AdamW& op, const Tensor& scratch) {
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
  bool done = false;
  cpu::dispatch_storage(op.w.dtype(), [&]<class W>(W) {
    done = cpu::dispatch_storage(op.m.dtype(), [&]<class M>(M) {
      pool_.run_ranges(op.w.dim(0), kGrain,
                       [&](int64_t begin, int64_t end, int) { step_range<W, M>(op, step, begin, end); });
    });
  });
  if (!done) RefBackend::execute(op, scratch);
}

}  // namespace sluice
