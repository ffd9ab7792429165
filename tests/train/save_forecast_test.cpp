#include "train/save_forecast.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

constexpr SaveRates rates{.write = 100, .copy = 1000};

TEST(SaveForecast, WhatIsWrittenBeforeWeightsChangeCostsNothing) {
  EXPECT_EQ(blocked_seconds({.bytes = 1000, .staging = 0, .seconds_left = 10}, rates), 0);
  EXPECT_EQ(blocked_seconds({.bytes = 1000, .staging = 1000, .seconds_left = 20}, rates), 0);
}

TEST(SaveForecast, TheRestIsCopiedWhereThereIsRoomAndWaitedForElse) {
  EXPECT_DOUBLE_EQ(blocked_seconds({.bytes = 1000, .staging = 1000, .seconds_left = 0}, rates), 1);
  EXPECT_DOUBLE_EQ(blocked_seconds({.bytes = 1000, .staging = 1000, .seconds_left = 4}, rates), 0.6);
  EXPECT_DOUBLE_EQ(blocked_seconds({.bytes = 1000, .staging = 400, .seconds_left = 0}, rates), 6);
  EXPECT_DOUBLE_EQ(blocked_seconds({.bytes = 1000, .staging = 0, .seconds_left = 0}, rates), 10);
}

}  // namespace
}  // namespace sluice
