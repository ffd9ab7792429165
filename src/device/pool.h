// One small pool of threads for all computing of a process. `run(chunks, f)` calls f(chunk, worker) for every chunk;
// the caller takes part. At most as many threads run chunks as the pool has, whoever calls, so ranks as threads never
// oversubscribe the machine: operations of several ranks run side by side, each on its caller, and threads that none of
// them needs help the one that takes long. Work is cut into the same chunks whatever the pool's size, so results do not
// depend on it.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace sluice {

class Pool {
 public:
  // `threads` >= 1 counts the caller; it is the most that run chunks at the same time.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  Pool(Pool&&) = delete;
  Pool& operator=(Pool&&) = delete;

  int threads() const;

  // f(int64_t chunk, int worker) with worker in [0, threads()); returns when all chunks are done. An exception thrown
  // by a chunk is rethrown here, after the others have ended. Must not be called from inside a chunk.
  template <class F>
  void run(int64_t chunks, F&& f) {
    run_erased(
        chunks,
        [](void* context, int64_t chunk, int worker) {
          (*static_cast<std::remove_reference_t<F>*>(context))(chunk, worker);
        },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

  // f(begin, end, worker) over [0, n) cut into ranges of `grain`.
  template <class F>
  void run_ranges(int64_t n, int64_t grain, F&& f) {
    run((n + grain - 1) / grain, [&](int64_t chunk, int worker) {
      const int64_t begin = chunk * grain;
      f(begin, begin + grain < n ? begin + grain : n, worker);
    });
  }

 private:
  using Chunk = void (*)(void* context, int64_t chunk, int worker);
  void run_erased(int64_t chunks, Chunk f, void* context);
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
