#include "base/philox.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

namespace sluice {
namespace {

using Block = Philox::Block;

// kat_vectors of Random123, lines "philox4x32 10": the counter and key words, least significant first.
TEST(Philox, MeetsThePublishedVectors) {
  constexpr Philox zero(0);
  static_assert(zero.block(0, 0) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr std::uint64_t ones = ~std::uint64_t{0};
  EXPECT_EQ(Philox(ones).block(ones, ones), (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox(0x299f31d0a4093822).block(0x85a308d3243f6a88, 0x0370734413198a2e),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, DrawsAreSlicesOfTheBlocks) {
  const Philox rng(42);
  const Block b = rng.block(3, 7);
  EXPECT_EQ(rng.bits(6, 7), std::uint64_t{b[1]} << 32 | b[0]);
  EXPECT_EQ(rng.bits(7, 7), std::uint64_t{b[3]} << 32 | b[2]);
  EXPECT_EQ(rng.uniform(6, 7), static_cast<double>(rng.bits(6, 7) >> 11) / 9007199254740992.0);
  EXPECT_EQ(rng.uniform_f32(14, 7), static_cast<float>(b[2] >> 8) / 16777216.0F);
  EXPECT_EQ(rng.normal(6, 7), rng.normal_pair(3, 7)[0]);
  EXPECT_EQ(rng.normal(7, 7), rng.normal_pair(3, 7)[1]);
}

TEST(Philox, KeysStreamsAndIndicesDiffer) {
  std::set<std::uint64_t> seen;
  for (std::uint64_t key = 0; key < 4; ++key) {
    for (std::uint64_t stream = 0; stream < 4; ++stream) {
      for (std::uint64_t index = 0; index < 64; ++index) seen.insert(Philox(key).bits(index, stream));
    }
  }
  EXPECT_EQ(seen.size(), 4U * 4U * 64U);
}

struct Moments {
  double mean, variance, fourth;
};

template <class Draw>
Moments moments(int count, Draw draw) {
  Moments sums{};
  for (int i = 0; i < count; ++i) {
    const double x = draw(static_cast<std::uint64_t>(i));
    sums.mean += x / count;
    sums.variance += x * x / count;
    sums.fourth += x * x * x * x / count;
  }
  sums.variance -= sums.mean * sums.mean;
  return sums;
}

TEST(Philox, UniformsAreUniform) {
  constexpr int count = 20000;
  const Philox rng(7);
  const Moments wide = moments(count, [&](std::uint64_t i) { return rng.uniform(i); });
  const Moments narrow = moments(count, [&](std::uint64_t i) { return rng.uniform_f32(i); });
  // Five standard errors of the mean, sqrt(1/12/n), and of the variance, sqrt(1/180/n).
  for (const Moments& m : {wide, narrow}) {
    EXPECT_NEAR(m.mean, 0.5, 5 * std::sqrt(1.0 / 12 / count));
    EXPECT_NEAR(m.variance, 1.0 / 12, 5 * std::sqrt(1.0 / 180 / count));
  }
}

TEST(Philox, NormalsAreNormal) {
  constexpr int count = 20000;
  const Philox rng(8);
  const Moments m = moments(count, [&](std::uint64_t i) { return rng.normal(i); });
  EXPECT_NEAR(m.mean, 0.0, 5 * std::sqrt(1.0 / count));
  EXPECT_NEAR(m.variance, 1.0, 5 * std::sqrt(2.0 / count));
  EXPECT_NEAR(m.fourth, 3.0, 5 * std::sqrt(96.0 / count));
}

TEST(Philox, BelowStaysBelowAndReachesEverything) {
  const Philox rng(9);
  std::vector<int> hits(10);
  for (std::uint64_t i = 0; i < 10000; ++i) ++hits.at(rng.below(10, i));
  for (const int count : hits) EXPECT_NEAR(count, 1000, 5 * 30);
  // The product's high word against 128-bit arithmetic, for bounds of every size.
  for (std::uint64_t i = 0; i < 64; ++i) {
    const std::uint64_t bound = rng.bits(i, 1) >> i;
    __extension__ using Wide = unsigned __int128;
    EXPECT_EQ(rng.below(bound, i, 2), static_cast<std::uint64_t>(Wide{rng.bits(i, 2)} * bound >> 64));
  }
}

}  // namespace
}  // namespace sluice
