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
  // What is written meanwhile was copied too.
  EXPECT_DOUBLE_EQ(blocked_seconds({.bytes = 1000, .staging = 950, .seconds_left = 0}, rates), 1);
}

TEST(SaveForecast, SpeedsAreThoseOfTheLastSaveThatTellsThem) {
  constexpr uint64_t kMuch = 1 << 30, kLittle = 1 << 20;
  const SaveRates measured =
      measured_rates(rates, 4 * kMuch, 4, {.writing_seconds = 8, .copied_bytes = kMuch, .copying_seconds = 0.5});
  EXPECT_DOUBLE_EQ(measured.write, 0.5 * static_cast<double>(kMuch));
  EXPECT_DOUBLE_EQ(measured.copy, 8 * static_cast<double>(kMuch));
  const RankWriter::Work little{.writing_seconds = 1, .copied_bytes = kLittle, .copying_seconds = 1};
  EXPECT_EQ(measured_rates(rates, kMuch, 1, little).copy, rates.copy);
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
