#include "device/pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "base/error.h"

namespace sluice {

namespace {

// Waiting threads look again for this long before they sleep: first without pause, then giving way to others.
constexpr std::chrono::microseconds kBusy{20};
constexpr std::chrono::microseconds kYielding{100};
// An operation that runs for longer is worth waking workers for.
constexpr std::chrono::microseconds kWorthWaking{20};

// True as soon as `ready()` is, false when the time is up.
template <class Ready>
bool spin_until(Ready&& ready) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  for (;;) {
    for (int i = 0; i < 64; ++i) {
      if (ready()) return true;
    }
    const auto elapsed = Clock::now() - start;
    if (elapsed > kYielding) return false;
    if (elapsed > kBusy) std::this_thread::yield();
  }
}

// Lets one kind of thread sleep until a condition on atomics holds. Whoever makes it true calls wake(). Both sides use
// sequentially consistent atomics: either the sleeper sees the condition or the waker sees the sleeper.
class Bed {
 public:
  template <class Ready>
  void sleep_until(Ready&& ready) {
    if (spin_until(ready)) return;
    std::unique_lock lock(mutex_);
    sleepers_.fetch_add(1);
    wakeup_.wait(lock, ready);
    sleepers_.fetch_sub(1);
  }
  void wake() {
    if (sleepers_.load() == 0) return;
    const std::lock_guard lock(mutex_);
    wakeup_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable wakeup_;
  std::atomic<int> sleepers_{0};
};

// The right to run chunks, as many times as the pool has threads. Who gives a place back may take it again before one
// that it woke: a rank then goes on instead of changing places with another at every operation. One that was woken and
// has not looked yet is enough, so others are not woken meanwhile.
class Places {
 public:
  explicit Places(int count) : free_(count) {}

  void take() {
    if (take_up_to(1) == 1) return;
    std::unique_lock lock(mutex_);
    waiting_.fetch_add(1);
    while (take_up_to(1) == 0) {
      ++asleep_;
      changed_.wait(lock);
      --asleep_;
      woken_.store(false);  // before it looks: a place that comes free later wakes somebody again
    }
    const bool others = waiting_.fetch_sub(1) > 1;
    lock.unlock();
    if (others && free_.load() > 0) wake_one();
  }
  // Returns how many it took.
  int take_up_to(int most) {
    int free = free_.load();
    while (free > 0) {
      const int taken = std::min(free, most);
      if (free_.compare_exchange_weak(free, free - taken)) return taken;
    }
    return 0;
  }
  void give_back(int count) {
    free_.fetch_add(count);
    if (waiting_.load() > 0) wake_one();
  }

 private:
  void wake_one() {
    if (woken_.load()) return;
    const std::lock_guard lock(mutex_);
    if (asleep_ == 0) return;  // those that wait have found a place
    woken_.store(true);
    changed_.notify_one();
  }

  std::atomic<int> free_;
  std::atomic<int> waiting_{0};
  std::atomic<bool> woken_{false};  // one was, and has not looked yet
  std::mutex mutex_;
  int asleep_ = 0;
  std::condition_variable changed_;
};

// One call of run().
struct Operation {
  void (*function)(void* context, int64_t chunk, int worker);
  void* context;
  int64_t chunks;
  alignas(64) std::atomic<int64_t> next{0};

  std::mutex failure_mutex;
  std::exception_ptr failure;  // of the lowest chunk that failed
  int64_t failed_chunk = 0;

  // Runs the next chunk; false if there is none.
  bool step(int worker) {
    const int64_t chunk = next.fetch_add(1);
    if (chunk >= chunks) return false;
    try {
      function(context, chunk, worker);
    } catch (...) {
      const std::lock_guard lock(failure_mutex);
      if (!failure || chunk < failed_chunk) {
        failure = std::current_exception();
        failed_chunk = chunk;
      }
    }
    return true;
  }
};

}  // namespace

// A job is an operation that workers help with. It is open while they may join it; the caller closes it when no chunk
// is left and waits for those inside. `gate` holds all of that in one word: [job number | open | workers inside].
struct Pool::State {
  static constexpr uint64_t kInside = (uint64_t{1} << 16) - 1;
  static constexpr uint64_t kOpen = uint64_t{1} << 16;
  static constexpr uint64_t kJob = uint64_t{1} << 17;
  // After this many operations of one thread in a row the others are taken to be away.
  static constexpr int kAway = 64;

  explicit State(int count) : places(count), callers(static_cast<size_t>(count)) {}

  // Written by the caller before the gate opens, read by those who passed it.
  Operation* operation = nullptr;

  alignas(64) std::atomic<uint64_t> gate{0};
  std::atomic<uint64_t> invited{0};  // workers that may be inside
  std::atomic<bool> stop{false};
  Bed workers_bed;
  Bed caller_bed;
  std::mutex one_job;  // held by the caller that has it

  alignas(64) Places places;
  std::vector<std::atomic<std::thread::id>> callers;  // those that have places; no id in the entries left

  alignas(64) std::atomic<std::thread::id> last_caller{};
  std::atomic<int> in_a_row{kAway};

  std::vector<std::thread> threads;

  void worker_loop(int worker) {
    uint64_t done = 0;  // the last job joined
    for (;;) {
      uint64_t seen = 0;
      workers_bed.sleep_until([&] {
        seen = gate.load();
        return stop.load() || ((seen & kOpen) != 0 && seen / kJob != done && (seen & kInside) < invited.load());
      });
      if (stop.load()) return;
      if (!gate.compare_exchange_strong(seen, seen + 1)) continue;
      done = seen / kJob;
      while (operation->step(worker)) {
      }
      const uint64_t left = gate.fetch_sub(1) - 1;
      if ((left & (kOpen | kInside)) == 0) caller_bed.wake();
    }
  }

  void end() {
    stop.store(true);
    workers_bed.wake();
    for (auto& thread : threads) thread.join();
  }

  // Throws if this thread is inside a chunk: it would wait for itself.
  void refuse_nested() const {
    const auto self = std::this_thread::get_id();
    bool nested = false;
    for (const auto& caller : callers) nested = nested || caller.load(std::memory_order_relaxed) == self;
    for (const auto& thread : threads) nested = nested || thread.get_id() == self;
    require(!nested, "a chunk of a pool's operation called the pool");
  }

  // Whether other threads compute, too: then an operation begins on its caller alone, for most are over before a worker
  // could wake up.
  bool shared_with_others() {
    const auto self = std::this_thread::get_id();
    const auto last = last_caller.load(std::memory_order_relaxed);
    if (last == self) {
      const int row = in_a_row.load(std::memory_order_relaxed);
      if (row >= kAway) return false;
      in_a_row.store(row + 1, std::memory_order_relaxed);
      return true;
    }
    last_caller.store(self, std::memory_order_relaxed);
    if (last == std::thread::id{}) return false;
    in_a_row.store(0, std::memory_order_relaxed);
    return true;
  }

  // Runs what is left of the operation together with workers; does nothing and returns false if there are none free.
  bool run_with_helpers(Operation& op) {
    const std::unique_lock job(one_job, std::try_to_lock);
    if (!job) return false;
    const int64_t useful = std::min<int64_t>(op.chunks - op.next.load() - 1, std::ssize(threads));
    const int helpers = useful > 0 ? places.take_up_to(static_cast<int>(useful)) : 0;
    if (helpers == 0) return false;
    operation = &op;
    invited.store(static_cast<uint64_t>(helpers));
    gate.store((gate.load() / kJob + 1) * kJob + kOpen);
    workers_bed.wake();
    while (op.step(0)) {
    }
    gate.fetch_and(~kOpen);
    caller_bed.sleep_until([&] { return (gate.load() & kInside) == 0; });
    places.give_back(helpers);
    return true;
  }

  void run(Operation& op) {
    using Clock = std::chrono::steady_clock;
    const bool could_share = op.chunks > 1 && !threads.empty();
    bool share = could_share && !shared_with_others();
    const auto start = could_share && !share ? Clock::now() : Clock::time_point();
    for (;;) {
      if (share && run_with_helpers(op)) return;
      if (!op.step(0)) return;
      if (could_share && !share) share = Clock::now() - start > kWorthWaking;
    }
  }
};

Pool::Pool(int threads) {
  require(threads >= 1 && threads < 65536, "a pool of {} threads", threads);
  state_ = std::make_unique<State>(threads);
  // Reserved, and filled before any job can run: workers never look at the vector while it grows.
  state_->threads.reserve(static_cast<size_t>(threads - 1));
  for (int worker = 1; worker < threads; ++worker) {
    try {
      state_->threads.emplace_back([state = state_.get(), worker] { state->worker_loop(worker); });
    } catch (const std::system_error& error) {
      state_->end();
      throw runtime_failure("no thread {} of {}: {}", worker + 1, threads, error.what())
          .advise("fewer --threads, or a higher limit of processes (ulimit -u)");
    }
  }
}

Pool::~Pool() {
  state_->end();
}

int Pool::threads() const {
  return static_cast<int>(state_->threads.size()) + 1;
}

void Pool::run_erased(int64_t chunks, Chunk f, void* context) {
  if (chunks <= 0) return;
  State& s = *state_;
  s.refuse_nested();
  s.places.take();
  std::thread::id nobody;
  auto* mine = &s.callers.front();
  while (!mine->compare_exchange_strong(nobody, std::this_thread::get_id())) {
    nobody = {};
    ++mine;
  }
  Operation op{.function = f, .context = context, .chunks = chunks};
  s.run(op);
  mine->store(std::thread::id{});
  s.places.give_back(1);
  if (op.failure) std::rethrow_exception(op.failure);
}

}  // namespace sluice
