#include "machine/ceilings.h"

#include <algorithm>

#include "base/clock.h"
#include "device/context.h"
#include "tensor/arena.h"

namespace sluice {

namespace {

constexpr int kRounds = 5;
constexpr int kCallsPerRound = 4;

// Seconds of a call, in the best round; one round warms up.
template <class Op>
double best_seconds(Context& ctx, const Op& op) {
  double best = 0;
  for (int round = 0; round <= kRounds; ++round) {
    ctx.backend().synchronize();
    const Stopwatch watch;
    for (int i = 0; i < kCallsPerRound; ++i) ctx.run(op);
    ctx.backend().synchronize();
    const double seconds = watch.seconds() / kCallsPerRound;
    if (round > 0) best = best > 0 ? std::min(best, seconds) : seconds;
  }
  return best;
}

}  // namespace

Ceilings measure_ceilings(Backend& backend, Memory& memory, DType dtype, int64_t side, int64_t copied) {
  Context ctx(backend, dtype);
  Arena arena(memory, MemoryKind::scratch, "ceilings");
  ctx.bind({.scratch = &arena});
  const auto random = [&](Shape shape, DType type, uint64_t key) {
    Tensor t = arena.empty(shape, type);
    ctx.run(FillNormal{.x = t, .std = 1, .key = key});
    return t;
  };
  Ceilings ceilings;
  {
    const ArenaScope scope(arena);
    const Gemm product{.c = arena.empty({side, side}, dtype),
                       .a = random({side, side}, dtype, 1),
                       .b = random({side, side}, dtype, 2),
                       .trans_b = true};
    ceilings.flops = product.flops() / best_seconds(ctx, product);
  }
  const ArenaScope scope(arena);
  const Copy copy{.y = arena.empty({copied}, DType::f32), .x = random({copied}, DType::f32, 3)};
  ceilings.bandwidth = cost_of(copy).bytes() / best_seconds(ctx, copy);
  return ceilings;
}

}  // namespace sluice
