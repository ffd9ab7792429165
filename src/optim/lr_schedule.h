// Learning rate by step: linear warm-up, then constant, linear or cosine decay to a minimum.
#pragma once

#include <cstdint>

namespace sluice {

enum class DecayShape : uint8_t { constant, linear, cosine };

struct LrSchedule {
  DecayShape shape = DecayShape::constant;
  double peak = 1e-4;
  double minimum = 0;
  int64_t warmup_steps = 0;  // step s < warmup has peak (s + 1) / (warmup + 1)
  int64_t decay_steps = 0;   // the minimum is reached at this step, counted from 0

  // Of step `step`, counted from 0.
  double at(int64_t step) const;
};

}  // namespace sluice
