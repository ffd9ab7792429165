// Which rank the others wait for, and when to say so.
#pragma once

#include <optional>
#include <set>

namespace sluice {

// What the ranks of a step have computed, without the time in which they waited for others.
struct RankTimes {
  int slowest = 0;         // the rank of the world that took longest
  double most = 0;         // seconds that it took
  double mean_others = 0;  // seconds of the other ranks, on average
};

// A rank that takes so much longer than the others, in so many steps in a row, is worth a warning.
inline constexpr double kMuchLonger = 1.5;
inline constexpr int kOften = 10;

class StragglerWatch {
 public:
  // After each step. The rank that was slowest, by more than kMuchLonger, in each of the last kOften steps; each rank
  // once.
  std::optional<int> add(const RankTimes& times);

 private:
  int rank_ = -1;
  int steps_ = 0;  // that it was so in a row
  std::set<int> told_;
};

}  // namespace sluice
