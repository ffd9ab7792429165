#include "training/save_forecast.h"

#include <gtest/gtest.h>

#include <vector>

#include "support/temporary_folder.h"

namespace sluice {
namespace {

// 100 bytes per second for 1000 of them.
const SaveSpeed speed{.written_at = {5, 10}, .copy = 1000};

TEST(SaveForecast, WhatIsWrittenBeforeWeightsChangeCostsNothing) {
  EXPECT_EQ(blocked_seconds({.bytes = 1000, .staging = 0, .seconds_left = 10}, speed), 0);
  EXPECT_EQ(blocked_seconds({.bytes = 1000, .staging = 1000, .seconds_left = 20}, speed), 0);
}

TEST(SaveForecast, TheRestIsCopiedWhereThereIsRoomAndWaitedForElse) {
  EXPECT_DOUBLE_EQ(blocked_seconds({.bytes = 1000, .staging = 1000, .seconds_left = 0}, speed), 1);
  EXPECT_DOUBLE_EQ(blocked_seconds({.bytes = 1000, .staging = 1000, .seconds_left = 4}, speed), 0.6);
  EXPECT_DOUBLE_EQ(blocked_seconds({.bytes = 1000, .staging = 400, .seconds_left = 0}, speed), 6);
  EXPECT_DOUBLE_EQ(blocked_seconds({.bytes = 1000, .staging = 0, .seconds_left = 0}, speed), 10);
  // What is written meanwhile was copied too.
  EXPECT_DOUBLE_EQ(blocked_seconds({.bytes = 1000, .staging = 950, .seconds_left = 0}, speed), 1);
}

TEST(SaveForecast, SpeedsAreThoseOfTheLastSaveThatTellsThem) {
  constexpr uint64_t kMuch = 1 << 30, kLittle = 1 << 20;
  const SaveSpeed measured =
      measured_speed(speed, 4, {.written_at = {1, 2, 8}, .copied_bytes = kMuch, .copying_seconds = 0.5});
  EXPECT_EQ(measured.written_at, (std::vector<double>{1, 2, 8}));
  EXPECT_DOUBLE_EQ(measured.copy, 8 * static_cast<double>(kMuch));
  const RankWriter::Work little{.written_at = {1}, .copied_bytes = kLittle, .copying_seconds = 1};
  EXPECT_EQ(measured_speed(speed, 1, little).copy, speed.copy);
}

TEST(SaveForecast, WritingMayBecomeSlower) {
  // Three quarters in three seconds, the last one in seven.
  const SaveSpeed slower{.written_at = {1, 2, 3, 10}, .copy = 1e6};
  const auto blocked = [&](uint64_t staging, double seconds_left) {
    return blocked_seconds({.bytes = 1000, .staging = staging, .seconds_left = seconds_left}, slower);
  };
  EXPECT_DOUBLE_EQ(blocked(0, 0), 10);
  EXPECT_DOUBLE_EQ(blocked(250, 0), 3);
  EXPECT_DOUBLE_EQ(blocked(375, 0), 2.5);
  EXPECT_DOUBLE_EQ(blocked(0, 6.5), 3.5);
  EXPECT_DOUBLE_EQ(blocked(1000, 6.5), 125e-6) << "an eighth is left to be copied";
  EXPECT_EQ(blocked(0, 11), 0);
}

TEST(SaveForecast, SpeedsAreTriedBeforeTheFirstSaveAndLeaveNothing) {
  const test::Folder folder;
  std::vector<std::byte> room(size_t{1} << 20);
  const auto tried = try_save_speed(folder.path(), 3 << 20, room);
  ASSERT_TRUE(tried);
  constexpr double kSlowest = 1e5, kFastest = 1e13;
  ASSERT_EQ(tried->written_at.size(), 1U);
  const double rate = (3 << 20) / tried->written_at[0];
  EXPECT_GT(rate, kSlowest);
  EXPECT_LT(rate, kFastest);
  EXPECT_GT(tried->copy, kSlowest);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_FALSE(try_save_speed(folder.path() / "none", 1, {}));
}

}  // namespace
}  // namespace sluice
