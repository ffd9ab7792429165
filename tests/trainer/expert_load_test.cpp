#include "trainer/expert_load.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace sluice {
namespace {

LayerLoad load_of(const std::vector<double>& slots) {
  return layer_load("layers.0", slots);
}

void expect_load(const std::vector<double>& slots, double max_over_mean, double entropy, int64_t unused) {
  const LayerLoad load = load_of(slots);
  EXPECT_EQ(load.layer, "layers.0");
  EXPECT_DOUBLE_EQ(load.max_over_mean, max_over_mean);
  EXPECT_NEAR(load.entropy, entropy, 1e-15);
  EXPECT_EQ(load.unused, unused);
}

TEST(ExpertLoad, IsOneWhereAllAreUsedEqually) {
  expect_load({7, 7, 7, 7, 7}, 1, 1, 0);
}

TEST(ExpertLoad, IsTheNumberOfExpertsWhereOneHasAll) {
  expect_load({0, 12, 0, 0}, 4, 0, 3);
}

// Half, a quarter, a quarter, none: 1.5 bits of the 2 that four experts can have.
TEST(ExpertLoad, IsTheClosedFormInBetween) {
  expect_load({4, 2, 0, 2}, 2, 0.75, 1);
}

TEST(ExpertLoad, DoesNotDependOnTheNumberOfTokens) {
  const LayerLoad few = load_of({3, 1, 2}), many = load_of({3e12, 1e12, 2e12});
  EXPECT_DOUBLE_EQ(few.max_over_mean, many.max_over_mean);
  EXPECT_DOUBLE_EQ(few.entropy, many.entropy);
  EXPECT_DOUBLE_EQ(few.max_over_mean, 1.5);
}

TEST(ExpertLoad, AnExpertThatIsAloneIsEvenlyUsed) {
  expect_load({9}, 1, 1, 0);
}

TEST(ExpertLoad, WithoutSlotsEveryExpertIsUnused) {
  expect_load({0, 0, 0}, 0, 0, 3);
  expect_load({}, 0, 0, 0);
}

}  // namespace
}  // namespace sluice
