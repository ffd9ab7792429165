#include "train/evaluation.h"

#include <algorithm>

#include "base/clock.h"

namespace sluice {

int64_t evaluation_batches(const RunSpec& spec, const Dataset& dataset, std::optional<int64_t> limit) {
  constexpr int64_t endless = int64_t{1} << 40;
  const int64_t there = dataset.size() > endless ? limit.value_or(1) : dataset.size() / spec.sampling.global_batch;
  return std::max<int64_t>(1, std::min(there, limit.value_or(there)));
}

Evaluation run_evaluation(const RunSpec& spec, const SessionOptions& options, const Dataset& dataset, int64_t batches,
                          const Pretrained* weights) {
  Evaluation result{.batches = batches, .tokens = batches * spec.tokens_per_step()};
  run_session(spec, options, dataset, [&](Trainer& trainer) {
    if (weights != nullptr) weights->load(trainer);
    const Stopwatch watch;
    const double loss = trainer.evaluate(dataset, batches);
    if (trainer.mesh().world.world_rank() != 0) return;
    result.loss = loss;
    result.seconds = watch.seconds();
  });
  return result;
}

}  // namespace sluice
