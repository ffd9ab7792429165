// Bell: where threads sleep until another has changed something they look at. Waking takes no mutex, so those woken
// together do not queue for one. A sleeper notes count(), looks whether what it wants holds, and sleeps only if the
// bell has not been rung since; whoever makes it hold rings afterwards. What is looked at is atomic or has a mutex of
// its own.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace sluice {

class Bell {
 public:
  using Clock = std::chrono::steady_clock;

  Bell() = default;
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;

  // How often it was rung, modulo 2^32.
  uint32_t count() const { return rings_.load(); }
  // Returns once the count differs from `heard`, at the deadline, or for no reason: look again.
  void sleep(uint32_t heard, Clock::time_point deadline);
  // Wakes everyone.
  void ring();

  // Sleeps until ready().
  template <class Ready>
  void sleep_until(Ready&& ready) {
    for (uint32_t heard = count(); !ready(); heard = count()) sleep(heard, Clock::time_point::max());
  }

 private:
  std::atomic<uint32_t> rings_{0};
  std::atomic<int> sleepers_{0};  // a ring without any needs no call of the system
};

}  // namespace sluice
