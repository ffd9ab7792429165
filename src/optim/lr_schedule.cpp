#include "optim/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sluice {

double LrSchedule::at(int64_t step) const {
  if (step < warmup_steps) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps + 1);
  if (shape == DecayShape::constant) return peak;
  const double span = std::max<double>(1, static_cast<double>(decay_steps - warmup_steps));
  const double done = std::min(1.0, static_cast<double>(step - warmup_steps) / span);
  const double left = shape == DecayShape::linear ? 1 - done : (1 + std::cos(std::numbers::pi * done)) / 2;
  return minimum + (peak - minimum) * left;
}

}  // namespace sluice
