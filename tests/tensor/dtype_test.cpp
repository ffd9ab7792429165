#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace sluice {
namespace {

float from_bits(uint32_t bits) {
  return std::bit_cast<float>(bits);
}

uint16_t bf16_bits(float x) {
  return bf16(x).bits;
}

TEST(BFloat16, RoundsToNearestEven) {
  EXPECT_EQ(bf16_bits(1.0F), 0x3f80);
  EXPECT_EQ(bf16_bits(-2.0F), 0xc000);
  // Half way between two: to the even one, up or down.
  EXPECT_EQ(bf16_bits(from_bits(0x3f808000)), 0x3f80);
  EXPECT_EQ(bf16_bits(from_bits(0x3f818000)), 0x3f82);
  // A little off half way.
  EXPECT_EQ(bf16_bits(from_bits(0x3f808001)), 0x3f81);
  EXPECT_EQ(bf16_bits(from_bits(0x3f817fff)), 0x3f81);
  // Into the next binade, and beyond the largest number.
  EXPECT_EQ(bf16_bits(from_bits(0x3fffffff)), 0x4000);
  EXPECT_EQ(bf16_bits(std::numeric_limits<float>::max()), 0x7f80);
}

TEST(BFloat16, KeepsWhatIsNoNumber) {
  EXPECT_EQ(bf16_bits(INFINITY), 0x7f80);
  EXPECT_EQ(bf16_bits(-INFINITY), 0xff80);
  EXPECT_EQ(bf16_bits(-0.0F), 0x8000);
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(NAN))));
  // NaNs whose payload lies in the bits that are dropped must not become infinities.
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(from_bits(0x7f800001)))));
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(from_bits(0xff80ffff)))));
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(from_bits(0x7fffffff)))));
}

TEST(BFloat16, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    bf16 x;
    x.bits = static_cast<uint16_t>(bits);
    const auto wide = static_cast<float>(x);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(bf16(wide))));
    } else {
      ASSERT_EQ(bf16(wide).bits, bits);
    }
  }
}

TEST(DType, SizesNamesAndAccumulators) {
  EXPECT_EQ(size_of(DType::f64), 8U);
  EXPECT_EQ(size_of(DType::f32), 4U);
  EXPECT_EQ(size_of(DType::bf16), 2U);
  EXPECT_EQ(size_of(DType::e4m3), 1U);
  EXPECT_EQ(size_of(DType::i64), 8U);
  EXPECT_EQ(size_of(DType::u8), 1U);
  EXPECT_EQ(name_of(DType::bf16), "bf16");
  EXPECT_EQ(name_of(DType::i32), "i32");
  EXPECT_TRUE(is_float(DType::e5m2));
  EXPECT_FALSE(is_float(DType::i64));
  EXPECT_EQ(accumulator_of(DType::f64), DType::f64);
  EXPECT_EQ(accumulator_of(DType::f32), DType::f32);
  EXPECT_EQ(accumulator_of(DType::bf16), DType::f32);
}

TEST(DType, DispatchGivesTheTypeAndRefusesTheRest) {
  const auto size = [](DType dtype) { return dispatch_float(dtype, []<class T>(T) { return sizeof(T); }); };
  EXPECT_EQ(size(DType::f64), 8U);
  EXPECT_EQ(size(DType::f32), 4U);
  EXPECT_EQ(size(DType::bf16), 2U);
  for (const DType dtype : {DType::i32, DType::i64, DType::u8, DType::e4m3, DType::e5m2}) {
    EXPECT_THROW(size(dtype), Error);
  }
}

}  // namespace
}  // namespace sluice
