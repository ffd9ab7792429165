// Elapsed time: seconds of a clock that never goes back. Only differences mean anything.
#pragma once

#include <chrono>

namespace sluice {

inline double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Stopwatch {
 public:
  double seconds() const { return steady_seconds() - start_; }
  void restart() { start_ = steady_seconds(); }

 private:
  double start_ = steady_seconds();
};

// When to say how far work is: now and then, so that short work says nothing.
class ProgressTimer {
 public:
  // Seconds since the work began.
  double seconds() const { return watch_.seconds(); }
  // True at most every five seconds, the first time after as many.
  bool due() {
    constexpr double quiet_seconds = 5;
    const double now = seconds();
    if (now - told_ < quiet_seconds) return false;
    told_ = now;
    return true;
  }

 private:
  Stopwatch watch_;
  double told_ = 0;
};

}  // namespace sluice
