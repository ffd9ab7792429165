#include "data/sampling.h"

#include <algorithm>

#include "base/error.h"

namespace sluice {

void Sampling::check() const {
  if (global_batch < 1 || micro_batch < 1 || dp < 1) {
    throw user_error("global batch size {}, micro-batch size {}, {} data-parallel ranks", global_batch, micro_batch, dp)
        .advise("each must be at least 1");
  }
  if (dp > global_batch || micro_batch > global_batch / dp || global_batch % (dp * micro_batch) != 0) {
    const std::int64_t unit = dp > INT64_MAX / micro_batch ? INT64_MAX : dp * micro_batch;
    const std::int64_t below = global_batch / unit * unit;
    const std::int64_t above = below > INT64_MAX - unit ? below : below + unit;
    throw user_error("global batch size {} is not a multiple of {} data-parallel ranks x micro-batch size {}",
                     global_batch, dp, micro_batch)
        .advise(below == 0 ? fmt::format("the smallest that is: {}", above)
                           : fmt::format("the nearest that are: {}, {}", below, above));
  }
}

std::vector<std::int64_t> Sampling::sample_ids(std::int64_t step, std::int64_t m, std::int64_t dp_rank) const {
  require(step >= 0 && m >= 0 && m < micro_batches() && dp_rank >= 0 && dp_rank < dp,
          "no micro-batch {} of {} on data-parallel rank {} of {} in step {}", m, micro_batches(), dp_rank, dp, step);
  std::vector<std::int64_t> ids(static_cast<std::size_t>(micro_batch));
  for (std::int64_t i = 0; i < micro_batch; ++i) ids[i] = sample_id(step, m, dp_rank, i);
  return ids;
}

}  // namespace sluice
