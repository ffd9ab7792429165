// Arena: a bump pointer over chunks of one device's memory, released all at once or back to a mark.
// The first chunk has the size the plan found (`reserve`); when it is full another is taken, counted and reported by
// `grown()`. A tensor lies in one chunk, so pointers never move. Blocks are aligned to 256 bytes. With
// SLUICE_DEBUG_MEMORY released memory is poisoned and a sentinel behind every block is checked on release.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "tensor/memory.h"
#include "tensor/tensor.h"

namespace sluice {

class Arena {
 public:
  static constexpr size_t kAlignment = 256;

  Arena(Memory& memory, MemoryKind kind, std::string name);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  Arena(Arena&&) = delete;
  Arena& operator=(Arena&&) = delete;

  // Bytes of a chunk that one tensor of `bytes` takes.
  static size_t footprint(size_t bytes);

  // Takes the first chunk; to be called once, before the first allocation.
  void reserve(size_t bytes);

  Tensor empty(Shape shape, DType dtype);
  Tensor empty_like(const Tensor& t) { return empty(t.shape(), t.dtype()); }

  struct Mark {
    size_t chunk = 0;
    size_t used = 0;
    size_t blocks = 0;
  };
  Mark mark() const;
  // Gives back everything allocated since `mark`; later allocations reuse the memory.
  void release(const Mark& mark);
  void release_all() { release(Mark{}); }

  const std::string& name() const { return name_; }
  Memory& memory() const { return memory_; }
  // The most bytes in use at once, alignment included: what `reserve` should have been given.
  size_t high_water() const { return high_water_; }
  size_t in_use() const;
  // Whether an address lies in what is in use.
  bool holds(const void* address) const;
  size_t reserved() const { return reserved_; }
  // Chunks taken after the first.
  int grown() const { return chunks_.empty() ? 0 : static_cast<int>(chunks_.size()) - 1; }
  // Bytes of those.
  size_t grown_bytes() const { return chunks_.empty() ? 0 : reserved_ - chunks_.front().size; }

 private:
  struct Chunk {
    char* data = nullptr;
    size_t size = 0;
    size_t used = 0;
  };
  struct Block {
    char* end = nullptr;  // where the sentinel stands
  };
  void take_chunk(size_t bytes);
  void* allocate(size_t bytes);

  Memory& memory_;
  MemoryKind kind_;
  std::string name_;
  std::vector<Chunk> chunks_;
  size_t current_ = 0;
  size_t before_ = 0;  // bytes used in the chunks before the current one
  size_t high_water_ = 0;
  size_t reserved_ = 0;
  std::vector<Block> blocks_;  // only with SLUICE_DEBUG_MEMORY
};

// Releases what was allocated in its scope.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() noexcept(false) { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;
  ArenaScope(ArenaScope&&) = delete;
  ArenaScope& operator=(ArenaScope&&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace sluice
