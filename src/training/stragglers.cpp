#include "training/stragglers.h"

namespace sluice {

std::optional<int> StragglerWatch::add(const RankTimes& times) {
  const bool slow = times.most > kMuchLonger * times.mean_others;
  steps_ = !slow ? 0 : times.slowest == rank_ ? steps_ + 1 : 1;
  rank_ = times.slowest;
  if (steps_ != kOften || !told_.insert(rank_).second) return {};
  return rank_;
}

}  // namespace sluice
