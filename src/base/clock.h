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
  ProgressTimer() = default;
  explicit ProgressTimer(double quiet_seconds) : quiet_(quiet_seconds) {}

  // Seconds since the work began.
  double seconds() const { return watch_.seconds(); }
  // True first after four seconds or `quiet_seconds`, then after twice as long each time, until it is once a minute.
  bool due() {
    constexpr double most = 60;
    const double now = seconds();
    if (now - told_ < quiet_) return false;
    told_ = now;
    quiet_ = quiet_ < most / 2 ? 2 * quiet_ : most;
    return true;
  }

 private:
  Stopwatch watch_;
  double told_ = 0;
  double quiet_ = 4;
};

}  // namespace sluice
