// Runs schedules without a model: is an order feasible, and how long does it take.
#pragma once

#include <vector>

#include "parallel/schedule.h"

namespace sluice {

// Every F, B and W exactly once and in a feasible order: runs the ranks with an unbounded first-in first-out queue for
// activations to the next rank and one for gradients to the previous, and throws an internal error naming the first
// action that can never run. Queues are empty at the end.
void validate(const Schedule& schedule);

// Times of one chunk's F, B and W, to compare schedules by. A full backward takes backward + weight.
struct ActionTimes {
  double forward = 1;
  double backward = 1;
  double weight = 1;
};
struct Timeline {
  struct Span {
    Action action;
    double begin = 0;
    double end = 0;
  };
  std::vector<std::vector<Span>> ranks;
  double end = 0;
  // Idle share of the ranks' time.
  double bubble() const;
};
// Every action as early as its rank's order and its inputs allow; messages take no time.
Timeline simulate(const Schedule& schedule, const ActionTimes& times);

}  // namespace sluice
