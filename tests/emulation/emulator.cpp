#include "emulation/emulator.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <bit>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace sluice::emulation {

thread_local Index threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr size_t kStack = size_t{256} << 10;
constexpr unsigned kWarp = 32;

// Who has come to a barrier, and how often it has opened.
struct Barrier {
  unsigned arrived = 0;
  unsigned opened = 0;
};

struct Warp {
  Barrier barrier;
  unsigned mask = 0;  // of those who wait at the barrier
  // What lanes give each other; two sets in turn, so that one barrier per exchange is enough.
  std::array<std::array<std::array<unsigned char, 16>, kWarp>, 2> slots{};
};

// Where a stack goes on. Saved and resumed by the compiler's own setjmp, which makes no system call.
struct Point {
  std::array<void*, 5> jump{};
  // What the sanitizers want to know of a change of stacks.
  const void* stack = nullptr;
  size_t stack_size = 0;
  void* fake_stack = nullptr;
  void* tsan_fiber = nullptr;
};

// Nothing may be assumed of these two but what their signatures say: in between other fibers run. Uninstrumented, since
// AddressSanitizer would clear the whole stack's shadow before a jump.
[[gnu::noipa, gnu::no_sanitize("address", "thread")]] void resume(Point& to) {
  __builtin_longjmp(to.jump.data(), 1);
}

void leaving([[maybe_unused]] Point& from, [[maybe_unused]] const Point& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_size);
#elif defined(__SANITIZE_THREAD__)
  from.tsan_fiber = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.tsan_fiber, 0);
#endif
}
void arrived([[maybe_unused]] const Point& at, [[maybe_unused]] Point* origin = nullptr) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(at.fake_stack, origin != nullptr ? &origin->stack : nullptr,
                                  origin != nullptr ? &origin->stack_size : nullptr);
#endif
}

[[gnu::noipa]] void go(Point& from, Point& to) {
  leaving(from, to);
  if (__builtin_setjmp(from.jump.data()) == 0) resume(to);
  arrived(from);
}

// A thread of emulated blocks, kept for the next block and launch: it runs the kernel each time it is started.
struct Fiber {
  Point point;
  unsigned number = 0;
  Index index;
  bool done = true;
  bool begun = false;
  void* stack = nullptr;
};

class Machine {
 public:
  ~Machine() {
    for (const auto& fiber : fibers_) {
#if defined(__SANITIZE_THREAD__)
      __tsan_destroy_fiber(fiber->point.tsan_fiber);
#elif defined(__SANITIZE_ADDRESS__)
      // Or whoever is given these addresses next meets the marks of frames that were never left.
      __asan_unpoison_memory_region(fiber->stack, kStack);
#endif
      munmap(fiber->stack, kStack);
    }
  }

  void run(const Index& grid, const Index& block, size_t shared_bytes, const std::function<void()>& kernel);
  void sync_block() { wait(block_barrier_, threads_); }
  // Barriers of different masks in one warp must not overlap.
  void sync_warp(unsigned mask) {
    Warp& w = warp();
    const unsigned members = mask & lanes();
    if ((members >> lane() & 1U) == 0) throw std::runtime_error("a lane outside the mask of its shuffle");
    if (w.barrier.arrived > 0 && w.mask != members) throw std::runtime_error("lanes of a warp wait with other masks");
    w.mask = members;
    wait(w.barrier, static_cast<unsigned>(std::popcount(members)));
  }
  Warp& warp() { return warps_[current_->number / kWarp]; }
  unsigned lane() const { return current_->number % kWarp; }
  unsigned lanes() const {
    const unsigned count = std::min(kWarp, threads_ - current_->number / kWarp * kWarp);
    return count == kWarp ? ~0U : (1U << count) - 1;
  }
  void* shared() const { return shared_; }

 private:
  void run_block();
  Fiber& fiber(unsigned i);
  static void enter();
  [[gnu::noipa]] void start_or_resume(Fiber& fiber);
  void wait(Barrier& barrier, unsigned members) {
    const unsigned round = barrier.opened;
    if (++barrier.arrived == members) {
      barrier.arrived = 0;
      ++barrier.opened;
      progress_ = true;
      return;
    }
    while (barrier.opened == round) go(current_->point, scheduler_);
  }

  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Warp> warps_;
  Barrier block_barrier_;
  unsigned threads_ = 0;
  const std::function<void()>* kernel_ = nullptr;  // null between launches
  void* shared_ = nullptr;
  Fiber* current_ = nullptr;
  Point scheduler_;
  ucontext_t first_entry_{};
  bool progress_ = false;
  std::exception_ptr failure_;
};

// The emulated GPU of each host thread; launches run on their caller.
thread_local Machine machine;

Fiber& Machine::fiber(unsigned i) {
  while (fibers_.size() <= i) {
    void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) throw std::runtime_error("no memory for the stack of an emulated thread");
    fibers_.push_back(std::make_unique<Fiber>());
    fibers_.back()->stack = stack;
    fibers_.back()->point.stack = stack;
    fibers_.back()->point.stack_size = kStack;
#if defined(__SANITIZE_THREAD__)
    fibers_.back()->point.tsan_fiber = __tsan_create_fiber(0);
#endif
    fibers_.back()->number = static_cast<unsigned>(fibers_.size() - 1);
  }
  return *fibers_[i];
}

void Machine::enter() {
  Machine& m = machine;
  Fiber& self = *m.current_;
  arrived(self.point, &m.scheduler_);
  while (true) {
    try {
      (*m.kernel_)();
    } catch (...) {
      if (!m.failure_) m.failure_ = std::current_exception();
    }
    self.done = true;
    m.progress_ = true;
    go(self.point, m.scheduler_);
  }
}

void Machine::start_or_resume(Fiber& fiber) {
  current_ = &fiber;
  threadIdx = fiber.index;
  if (fiber.begun) {
    go(scheduler_, fiber.point);
    return;
  }
  fiber.begun = true;
  getcontext(&first_entry_);
  first_entry_.uc_stack.ss_sp = fiber.stack;
  first_entry_.uc_stack.ss_size = kStack;
  first_entry_.uc_link = nullptr;
  makecontext(&first_entry_, enter, 0);
  leaving(scheduler_, fiber.point);
  if (__builtin_setjmp(scheduler_.jump.data()) == 0) setcontext(&first_entry_);
  arrived(machine.scheduler_);
}

void Machine::run_block() {
  block_barrier_ = {};
  for (Warp& w : warps_) w.barrier = {};
  for (unsigned i = 0; i < threads_; ++i) fiber(i).done = false;
  unsigned left = threads_;
  while (left > 0) {
    progress_ = false;
    for (unsigned i = 0; i < threads_; ++i) {
      Fiber& next = *fibers_[i];
      if (next.done) continue;
      start_or_resume(next);
      left -= next.done ? 1 : 0;
    }
    if (failure_) break;
    if (!progress_) {
      failure_ = std::make_exception_ptr(
          std::runtime_error(std::to_string(left) + " threads of a block wait at a barrier for ever"));
      break;
    }
  }
  if (!failure_) return;
  // Fibers in the middle of something cannot be used again.
  for (auto& fiber : fibers_) {
    fiber->begun = fiber->begun && fiber->done;
    fiber->done = true;
  }
  std::rethrow_exception(std::exchange(failure_, nullptr));
}

void Machine::run(const Index& grid, const Index& block, size_t shared_bytes, const std::function<void()>& kernel) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const auto refuse = [](const std::string& why) { throw std::runtime_error("a launch with " + why); };
  const auto text = [](const Index& i) {
    return std::to_string(i.x) + " x " + std::to_string(i.y) + " x " + std::to_string(i.z);
  };
  if (threads == 0 || threads > 1024 || block.z > 64) refuse("a block of " + text(block));
  const bool grid_fits = grid.x <= 0x7fffffffU && grid.y <= 65535 && grid.z <= 65535;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || !grid_fits) refuse("a grid of " + text(grid));
  if (shared_bytes > kMostSharedMemory) refuse(std::to_string(shared_bytes) + " bytes of shared memory");
  if (kernel_ != nullptr) refuse("another one around it");

  // An allocation of its own for each launch: AddressSanitizer knows where it ends.
  constexpr std::align_val_t kAlignment{1024};
  shared_ = shared_bytes > 0 ? ::operator new(shared_bytes, kAlignment) : nullptr;
  struct Scope {
    Machine& m;
    ~Scope() {
      m.kernel_ = nullptr;
      ::operator delete(m.shared_, kAlignment);
    }
  } scope{*this};
  kernel_ = &kernel;
  threads_ = static_cast<unsigned>(threads);
  warps_.resize((threads_ + kWarp - 1) / kWarp);
  blockDim = block;
  gridDim = grid;
  for (unsigned i = 0; i < threads_; ++i) {
    fiber(i).index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
  }
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        if (shared_bytes > 0) std::memset(shared_, 0xff, shared_bytes);
        blockIdx = {x, y, z};
        run_block();
      }
    }
  }
}

}  // namespace

int lane() {
  return static_cast<int>(machine.lane());
}
void* shared_memory() {
  return machine.shared();
}
void sync_block() {
  machine.sync_block();
}
void sync_warp(unsigned mask) {
  machine.sync_warp(mask);
}
unsigned lanes_of_warp() {
  return machine.lanes();
}

void exchange_bytes(unsigned mask, void* value, size_t bytes, int lane) {
  Warp& warp = machine.warp();
  auto& slots = warp.slots[warp.barrier.opened % 2];
  std::memcpy(slots[machine.lane()].data(), value, bytes);
  machine.sync_warp(mask);
  const bool there = lane >= 0 && lane < 32 && ((mask & machine.lanes()) >> lane & 1U) != 0;
  if (there) std::memcpy(value, slots[static_cast<size_t>(lane)].data(), bytes);
}

void run(const Index& grid, const Index& block, size_t shared_bytes, const std::function<void()>& kernel) {
  machine.run(grid, block, shared_bytes, kernel);
}

}  // namespace sluice::emulation
