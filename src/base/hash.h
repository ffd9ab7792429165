// 64-bit xxhash (XXH3): the same value for the same bytes and seed on every machine. Not cryptographic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace sluice {

std::uint64_t hash64(std::span<const std::byte> bytes, std::uint64_t seed = 0);
std::uint64_t hash64(std::string_view text, std::uint64_t seed = 0);

// The hash64 of bytes that come in several pieces.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  Hasher(Hasher&&) = delete;
  Hasher& operator=(Hasher&&) = delete;

  void add(std::span<const std::byte> bytes);
  // Of all since the last call; the next byte begins anew.
  std::uint64_t take();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
