#include "device/pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"

namespace sluice {

namespace {

// Waiting threads look again for this long before they sleep: first without pause, then giving way to others.
constexpr std::chrono::microseconds kBusy{20};
constexpr std::chrono::microseconds kYielding{100};

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

}  // namespace

// A job is open while workers may join it; the caller closes it when no chunk is left and waits for those inside.
// `gate` holds all of that in one word: [job number | open | workers inside].
struct Pool::State {
  static constexpr uint64_t kInside = (uint64_t{1} << 16) - 1;
  static constexpr uint64_t kOpen = uint64_t{1} << 16;
  static constexpr uint64_t kJob = uint64_t{1} << 17;

  // Written by the caller before the gate opens, read by those who passed it.
  Chunk function = nullptr;
  void* context = nullptr;
  int64_t chunks = 0;

  alignas(64) std::atomic<uint64_t> gate{0};
  alignas(64) std::atomic<int64_t> next{0};
  std::atomic<bool> stop{false};
  Bed workers_bed;
  Bed caller_bed;

  std::mutex one_job;  // held by the running caller
  std::atomic<std::thread::id> owner{};

  std::mutex failure_mutex;
  std::exception_ptr failure;  // of the lowest chunk that failed
  int64_t failed_chunk = 0;

  std::vector<std::thread> threads;

  void work(int worker) {
    for (int64_t chunk = next.fetch_add(1); chunk < chunks; chunk = next.fetch_add(1)) {
      try {
        function(context, chunk, worker);
      } catch (...) {
        const std::lock_guard lock(failure_mutex);
        if (!failure || chunk < failed_chunk) {
          failure = std::current_exception();
          failed_chunk = chunk;
        }
      }
    }
  }

  void worker_loop(int worker) {
    uint64_t done = 0;  // the last job joined
    for (;;) {
      uint64_t seen = 0;
      workers_bed.sleep_until([&] {
        seen = gate.load();
        return stop.load() || ((seen & kOpen) != 0 && seen / kJob != done);
      });
      if (stop.load()) return;
      if (!gate.compare_exchange_strong(seen, seen + 1)) continue;
      done = seen / kJob;
      work(worker);
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
    bool nested = owner.load() == self;
    for (const auto& thread : threads) nested = nested || thread.get_id() == self;
    require(!nested, "a chunk of a pool's operation called the pool");
  }
};

Pool::Pool(int threads) : state_(std::make_unique<State>()) {
  require(threads >= 1 && threads < 65536, "a pool of {} threads", threads);
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
  const std::lock_guard job(s.one_job);
  s.owner.store(std::this_thread::get_id());
  s.function = f;
  s.context = context;
  s.chunks = chunks;
  s.next.store(0);
  s.failure = nullptr;

  const bool shared = chunks > 1 && !s.threads.empty();
  if (shared) {
    s.gate.store((s.gate.load() / State::kJob + 1) * State::kJob + State::kOpen);
    s.workers_bed.wake();
  }
  s.work(0);
  if (shared) {
    s.gate.fetch_and(~State::kOpen);
    s.caller_bed.sleep_until([&] { return (s.gate.load() & State::kInside) == 0; });
  }

  s.owner.store(std::thread::id{});
  if (s.failure) std::rethrow_exception(std::exchange(s.failure, nullptr));
}

}  // namespace sluice
