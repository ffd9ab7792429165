#include "training/stragglers.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

constexpr RankTimes slow(int rank) {
  return {.slowest = rank, .most = 1.6, .mean_others = 1};
}

TEST(StragglerWatch, NamesARankThatIsMuchSlowerAgainAndAgainOnce) {
  StragglerWatch watch;
  for (int i = 1; i < kOften; ++i) EXPECT_FALSE(watch.add(slow(3)));
  EXPECT_EQ(watch.add(slow(3)), 3);
  for (int i = 0; i < 3 * kOften; ++i) EXPECT_FALSE(watch.add(slow(3)));
  for (int i = 1; i < kOften; ++i) EXPECT_FALSE(watch.add(slow(0)));
  EXPECT_EQ(watch.add(slow(0)), 0);
}

TEST(StragglerWatch, NoiseIsNone) {
  StragglerWatch watch;
  for (int i = 0; i < 3 * kOften; ++i) {
    EXPECT_FALSE(watch.add(slow(i % 2)));
    EXPECT_FALSE(watch.add(slow(i % 2)));
    EXPECT_FALSE(watch.add({.slowest = i % 2, .most = 1.4, .mean_others = 1}));
  }
}

}  // namespace
}  // namespace sluice
