#include "training/evaluation.h"

#include <algorithm>

#include "base/clock.h"

namespace sluice {

int64_t evaluation_samples(const RunSpec& spec, const Dataset& dataset, std::optional<int64_t> batch_limit) {
  constexpr int64_t endless = int64_t{1} << 40;
  const int64_t batch = spec.sampling.global_batch;
  if (dataset.size() > endless) return batch_limit.value_or(1) * batch;
  const int64_t most_batches = dataset.size() / batch + 1;
  return std::min(dataset.size(), std::min(batch_limit.value_or(most_batches), most_batches) * batch);
}

Evaluation run_evaluation(const RunSpec& spec, const LaunchOptions& options, const Dataset& dataset, int64_t samples,
                          const Pretrained* weights, const std::function<void(int64_t done, int64_t all)>& progress) {
  Evaluation result{.evaluated = {}, .samples = samples};
  run_session(spec, options, dataset, [&](Trainer& trainer) {
    if (weights != nullptr) weights->load(trainer);
    const bool first = trainer.mesh().world.world_rank() == 0;
    const Stopwatch watch;
    const Evaluated evaluated = trainer.evaluate(dataset, samples, {.progress = first ? progress : nullptr});
    if (!first) return;
    result.evaluated = evaluated;
    result.seconds = watch.seconds();
  });
  return result;
}

}  // namespace sluice
