// Philox4x32-10, the counter-based generator of Salmon et al. 2011: every number is a pure function of (key, stream,
// index), so what is drawn does not depend on who draws it or in which order. Nothing here has state that moves.
// The draws at one (key, stream, index) share bits: use different streams or keys for independent quantities.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "base/host_device.h"

namespace sluice {

class Philox {
 public:
  using Block = std::array<std::uint32_t, 4>;

  explicit constexpr Philox(std::uint64_t key) : key_(key) {}

  // The 128 random bits at the counter (counter_hi, counter_lo).
  constexpr Block block(std::uint64_t counter_lo, std::uint64_t counter_hi = 0) const {
    Block c{low(counter_lo), high(counter_lo), low(counter_hi), high(counter_hi)};
    std::uint32_t k0 = low(key_), k1 = high(key_);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c[2];
      c = {high(p1) ^ c[1] ^ k0, low(p1), high(p0) ^ c[3] ^ k1, low(p0)};
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    return c;
  }

  // 64 random bits.
  constexpr std::uint64_t bits(std::uint64_t index, std::uint64_t stream = 0) const {
    const Block b = block(index / 2, stream);
    return index % 2 == 0 ? join(b[0], b[1]) : join(b[2], b[3]);
  }

  // Uniform on [0, 1), 53 bits.
  constexpr double uniform(std::uint64_t index, std::uint64_t stream = 0) const { return unit(bits(index, stream)); }

  // The uniforms at indices 2 * pair and 2 * pair + 1.
  constexpr std::array<double, 2> uniform_pair(std::uint64_t pair, std::uint64_t stream = 0) const {
    const Block b = block(pair, stream);
    return {unit(join(b[0], b[1])), unit(join(b[2], b[3]))};
  }

  // Uniform on [0, 1), 24 bits: exact in f32.
  constexpr float uniform_f32(std::uint64_t index, std::uint64_t stream = 0) const {
    return static_cast<float>(block(index / 4, stream)[index % 4] >> 8) * 0x1p-24F;
  }

  // Uniform on {0, ..., bound - 1}: the bias, at most bound / 2^64, is not felt. `bound` must not be zero.
  constexpr std::uint64_t below(std::uint64_t bound, std::uint64_t index, std::uint64_t stream = 0) const {
    return multiply_high(bits(index, stream), bound);
  }

  // The standard normals at indices 2 * pair and 2 * pair + 1, by Box and Muller.
  SLUICE_HOST_DEVICE std::array<double, 2> normal_pair(std::uint64_t pair, std::uint64_t stream = 0) const {
    const auto [u, turn] = uniform_pair(pair, stream);
    const double radius = std::sqrt(-2.0 * std::log(1.0 - u));  // 1 - u is in (0, 1]
    const double angle = 2.0 * std::numbers::pi * turn;
    return {radius * std::cos(angle), radius * std::sin(angle)};
  }

  // Standard normal.
  SLUICE_HOST_DEVICE double normal(std::uint64_t index, std::uint64_t stream = 0) const {
    return normal_pair(index / 2, stream)[index % 2];
  }

 private:
  static constexpr std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
  static constexpr std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }
  static constexpr std::uint64_t join(std::uint32_t lo, std::uint32_t hi) { return std::uint64_t{hi} << 32 | lo; }
  static constexpr double unit(std::uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }

  static constexpr std::uint64_t multiply_high(std::uint64_t a, std::uint64_t b) {
    const std::uint64_t ll = std::uint64_t{low(a)} * low(b), lh = std::uint64_t{low(a)} * high(b);
    const std::uint64_t hl = std::uint64_t{high(a)} * low(b), hh = std::uint64_t{high(a)} * high(b);
    const std::uint64_t middle = high(ll) + std::uint64_t{low(lh)} + low(hl);
    return hh + high(lh) + high(hl) + high(middle);
  }

  std::uint64_t key_;
};

}  // namespace sluice
