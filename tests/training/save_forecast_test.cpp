#include "training/save_forecast.h"

#include <gtest/gtest.h>

#include <vector>

#include "support/temporary_folder.h"

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

TEST(SaveForecast, SpeedsAreTriedBeforeTheFirstSaveAndLeaveNothing) {
  const test::Folder folder;
  std::vector<std::byte> room(size_t{1} << 20);
  const auto tried = try_save_rates(folder.path(), 3 << 20, room);
  ASSERT_TRUE(tried);
  constexpr double kSlowest = 1e5, kFastest = 1e13;
  EXPECT_GT(tried->write, kSlowest);
  EXPECT_LT(tried->write, kFastest);
  EXPECT_GT(tried->copy, kSlowest);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_FALSE(try_save_rates(folder.path() / "none", 1, {}));
}

}  // namespace
}  // namespace sluice
