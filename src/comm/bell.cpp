#include "comm/bell.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>

namespace sluice {

namespace {

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t) && std::atomic<uint32_t>::is_always_lock_free);

// steady_clock counts CLOCK_MONOTONIC, which is the clock of this call's deadlines.
timespec absolute(Bell::Clock::time_point time) {
  using std::chrono::duration_cast;
  const auto since = time.time_since_epoch();
  const auto seconds = duration_cast<std::chrono::seconds>(since);
  return {.tv_sec = seconds.count(), .tv_nsec = duration_cast<std::chrono::nanoseconds>(since - seconds).count()};
}

}  // namespace

void Bell::sleep(uint32_t heard, Clock::time_point deadline) {
  const timespec at = absolute(deadline);
  // Sequentially consistent: either the ringer sees this sleeper, or the system sees the new count and does not sleep.
  sleepers_.fetch_add(1);
  syscall(SYS_futex, &rings_, FUTEX_WAIT_BITSET_PRIVATE, heard, deadline == Clock::time_point::max() ? nullptr : &at,
          nullptr, FUTEX_BITSET_MATCH_ANY);
  sleepers_.fetch_sub(1);
}

void Bell::ring() {
  rings_.fetch_add(1);
  if (sleepers_.load() > 0) syscall(SYS_futex, &rings_, FUTEX_WAKE_PRIVATE, INT_MAX);
}

}  // namespace sluice
