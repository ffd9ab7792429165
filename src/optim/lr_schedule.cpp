#include "optim/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sluice {
namespace {

double real(int64_t steps) {
  return static_cast<double>(steps);
}

// Falls from 1 to 0.
double half_cosine(double done) {
  return (1 + std::cos(std::numbers::pi * done)) / 2;
}

// What is left of the way from the peak to the minimum when `done` of wsd's last phase is over.
double left_of(WsdDecay decay, double done) {
  switch (decay) {
    case WsdDecay::linear:
      return 1 - done;
    case WsdDecay::cosine:
      return half_cosine(done);
    case WsdDecay::exponential:
      return 2 * std::exp2(-done) - 1;
    case WsdDecay::minus_sqrt:
      break;
  }
  return 1 - std::sqrt(done);
}

}  // namespace

double LrSchedule::at(int64_t step) const {
  if (warmup_steps > 0 && step <= warmup_steps) {
    const double first = init.value_or(peak / real(warmup_steps + 1));
    return first + (peak - first) * real(step) / real(warmup_steps);
  }
  if (decay != LrDecay::constant && step > decay_steps) return minimum;
  const double done = real(step - warmup_steps) / real(std::max<int64_t>(1, decay_steps - warmup_steps));
  const auto between = [&](double left) { return minimum + (peak - minimum) * left; };
  switch (decay) {
    case LrDecay::constant:
      break;
    case LrDecay::linear:
      return between(1 - done);
    case LrDecay::cosine:
      return between(half_cosine(done));
    case LrDecay::inverse_square_root: {
      const double slower = std::sqrt(real(std::max<int64_t>(warmup_steps, 1)) / real(std::max<int64_t>(step, 1)));
      return std::max(minimum, peak * slower);
    }
    case LrDecay::wsd: {
      const int64_t past = step - (decay_steps - wsd_steps);
      return past <= 0 ? peak : between(left_of(wsd, real(past) / real(wsd_steps)));
    }
  }
  return peak;
}

double WeightDecaySchedule::at(int64_t step) const {
  if (ramp == WeightDecayRamp::constant || step > steps) return end;
  const double done = real(step) / real(std::max<int64_t>(1, steps));
  return start + (end - start) * (ramp == WeightDecayRamp::linear ? done : half_cosine(1 - done));
}

}  // namespace sluice
