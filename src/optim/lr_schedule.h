// The learning rate and the weight decay of each step.
#pragma once

#include <cstdint>
#include <optional>

namespace sluice {

// Shape of the learning rate after warm-up.   wsd: warm-up, stable, decay   Hu et al. 2024
enum class LrDecay : uint8_t { constant, linear, cosine, inverse_square_root, wsd };
// Shape of wsd's last phase.
enum class WsdDecay : uint8_t { linear, cosine, exponential, minus_sqrt };

// With s the step, counted from 0, w = warmup_steps and d = decay_steps:
//   s <= w, w > 0        init + (peak - init) s / w
//   constant             peak
//   s > d                minimum
//   inverse_square_root  max(minimum, peak sqrt(max(w, 1) / max(s, 1)))
//   otherwise            minimum + (peak - minimum) c, where t = (s - w) / (d - w) and c is
//     linear  1 - t;  cosine  (1 + cos pi t) / 2;  wsd  1 up to step d - wsd_steps, and behind it, with
//     u = (s - d + wsd_steps) / wsd_steps:  linear  1 - u;  cosine  (1 + cos pi u) / 2;  exponential  2 / 2^u - 1;
//     minus_sqrt  1 - sqrt(u)
// These are the forms of Megatron-LM and NeMo AutoModel.
struct LrSchedule {
  LrDecay decay = LrDecay::constant;
  double peak = 1e-4;
  double minimum = 0;
  int64_t warmup_steps = 0;
  std::optional<double> init = std::nullopt;  // of step 0 with warm-up; none: peak / (warmup_steps + 1)
  int64_t decay_steps = 0;                    // above warmup_steps unless constant
  WsdDecay wsd = WsdDecay::exponential;
  int64_t wsd_steps = 0;  // of its last phase, which ends at decay_steps

  double at(int64_t step) const;
};

enum class WeightDecayRamp : uint8_t { constant, linear, cosine };

// From `start` at step 0 to `end` at step `steps`, and from there on; constant: always `end`.
//   start + (end - start) c, with t = s / steps:  linear  c = t;  cosine  c = (1 + cos pi (1 - t)) / 2
struct WeightDecaySchedule {
  WeightDecayRamp ramp = WeightDecayRamp::constant;
  double start = 0;
  double end = 0;
  int64_t steps = 0;

  double at(int64_t step) const;
};

}  // namespace sluice
