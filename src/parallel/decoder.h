// Decoder: runs the tokens of one sequence through a whole model as they come, keeping keys and values (KvCache) of
// those it has had. One rank. Each call's memory is given back but for the caches, so after the largest call nothing is
// allocated. How tokens are cut into calls changes logits by no more than their rounding.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "parallel/runtime.h"

namespace sluice {

class Decoder {
 public:
  // For sequences of up to `capacity` tokens. `stage` holds the whole model, outlives the decoder, and may get other
  // weights between calls (its groups say so: FlatGroup::invalidate). With `sizes` arenas are reserved now.
  Decoder(Context& ctx, Stage& stage, int64_t capacity, Memory& memory, const ArenaSizes* sizes = nullptr);
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  Decoder(Decoder&&) = delete;
  Decoder& operator=(Decoder&&) = delete;
  ~Decoder() = default;

  // Logits of what follows the last of `tokens`, or each of them.
  enum class Logits : uint8_t { last, all };
  // Continues the sequence. Returns logits [1 or T, V] of the accumulator type, valid until the next call.
  Tensor append(std::span<const int32_t> tokens, Logits which = Logits::last);

  int64_t length() const { return length_; }
  int64_t capacity() const { return cos_sin_.dim(0); }
  // Forgets all but the first `length` tokens.
  void rewind(int64_t length);
  // On meta: as if so many tokens had been there.
  void assume(int64_t length);

  ArenaSizes arena_sizes() const;

 private:
  void set_length(int64_t length);
  Arena& arena(const char* name, MemoryKind kind, const ArenaSizes* sizes);

  Context& ctx_;
  const Chunk& chunk_;
  int64_t vocab_;
  int64_t hidden_;
  Memory& memory_;
  std::vector<std::unique_ptr<Arena>> arenas_;
  Arena& kept_;     // tables and caches
  Arena& call_;     // of one call
  Arena& block_;    // what a block's forward keeps
  Arena& scratch_;  // of a block
  Tensor cos_sin_;
  std::vector<KvCache> caches_;  // by block
  int64_t length_ = 0;
};

}  // namespace sluice
