#include "tensor/arena.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace sluice {

namespace {

#ifdef SLUICE_DEBUG_MEMORY
constexpr bool kDebug = true;
#else
constexpr bool kDebug = false;
#endif
// Bit patterns that are NaN as f64, f32 and bf16, so that a read of released memory shows.
constexpr unsigned char kPoison = 0xff;
constexpr unsigned char kSentinel = 0xa5;
constexpr size_t kSentinelBytes = kDebug ? Arena::kAlignment : 0;
// An arena nobody sized starts with this much of real memory, or with all it will ever need where memory is not real.
constexpr size_t kUnsizedChunk = size_t{1} << 20;
constexpr size_t kUnboundedChunk = size_t{1} << 44;

size_t aligned(size_t bytes) {
  return (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
}

}  // namespace

Arena::Arena(Memory& memory, MemoryKind kind, std::string name)
    : memory_(memory), kind_(kind), name_(std::move(name)) {}

Arena::~Arena() {
  for (const Chunk& chunk : chunks_) memory_.release(kind_, chunk.data, chunk.size);
}

// An empty tensor still gets an address of its own.
size_t Arena::footprint(size_t bytes) {
  return aligned(std::max<size_t>(bytes, 1)) + kSentinelBytes;
}

void Arena::reserve(size_t bytes) {
  require(chunks_.empty(), "arena {} is reserved twice or too late", name_);
  if (bytes > 0) take_chunk(aligned(bytes));
}

void Arena::take_chunk(size_t bytes) {
  auto* data = static_cast<char*>(memory_.allocate(kind_, bytes));
  if (kDebug && memory_.host_visible()) std::memset(data, kPoison, bytes);
  chunks_.push_back({data, bytes, 0});
  reserved_ += bytes;
}

void* Arena::allocate(size_t bytes) {
  const size_t size = footprint(bytes);
  if (chunks_.empty()) take_chunk(memory_.real() ? std::max(size, kUnsizedChunk) : kUnboundedChunk);
  while (chunks_[current_].used + size > chunks_[current_].size) {
    if (current_ + 1 == chunks_.size()) take_chunk(std::max(size, chunks_[current_].size));
    before_ += chunks_[current_].used;
    ++current_;
  }
  Chunk& chunk = chunks_[current_];
  char* data = chunk.data + chunk.used;
  chunk.used += size;
  high_water_ = std::max(high_water_, before_ + chunk.used);
  if (kDebug && memory_.host_visible()) {
    char* end = data + bytes;
    std::memset(end, kSentinel, static_cast<size_t>(data + size - end));
    blocks_.push_back({end});
  }
  return data;
}

Tensor Arena::empty(Shape shape, DType dtype) {
  return {allocate(static_cast<size_t>(shape.numel()) * size_of(dtype)), shape, dtype};
}

size_t Arena::in_use() const {
  return before_ + (chunks_.empty() ? 0 : chunks_[current_].used);
}

bool Arena::holds(const void* address) const {
  const auto* at = static_cast<const char*>(address);
  return std::any_of(chunks_.begin(), chunks_.end(),
                     [&](const Chunk& chunk) { return at >= chunk.data && at < chunk.data + chunk.used; });
}

Arena::Mark Arena::mark() const {
  return {current_, chunks_.empty() ? 0 : chunks_[current_].used, blocks_.size()};
}

void Arena::release(const Mark& mark) {
  if (chunks_.empty()) return;
  require(mark.chunk < current_ || (mark.chunk == current_ && mark.used <= chunks_[current_].used),
          "arena {} is released to a mark ahead of it", name_);
  if (kDebug && memory_.host_visible()) {
    for (size_t i = mark.blocks; i < blocks_.size(); ++i) {
      for (size_t j = 0; j < kSentinelBytes; ++j) {
        require(static_cast<unsigned char>(blocks_[i].end[j]) == kSentinel,
                "arena {}: block {} was written behind its end", name_, i);
      }
    }
    blocks_.resize(mark.blocks);
    for (size_t c = mark.chunk; c <= current_; ++c) {
      const size_t from = c == mark.chunk ? mark.used : 0;
      std::memset(chunks_[c].data + from, kPoison, chunks_[c].used - from);
    }
  }
  while (current_ > mark.chunk) {
    chunks_[current_--].used = 0;
    before_ -= chunks_[current_].used;
  }
  chunks_[current_].used = mark.used;
}

}  // namespace sluice
