#include "base/text.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <string>

namespace sluice {
namespace {

TEST(Text, Bytes) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes((1U << 20) - 1), "1.00 MiB");
  EXPECT_EQ(format_bytes(std::uint64_t{726} << 30), "726 GiB");
  EXPECT_EQ(format_bytes(77953336934), "72.6 GiB");
  EXPECT_EQ(format_bytes(std::numeric_limits<std::uint64_t>::max()), "16384 PiB");
}

TEST(Text, Counts) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(-100), "-100");
  EXPECT_EQ(format_count(-1234567), "-1,234,567");
  EXPECT_EQ(format_count(std::numeric_limits<std::int64_t>::min()), "-9,223,372,036,854,775,808");
}

TEST(Text, Magnitudes) {
  EXPECT_EQ(format_magnitude(512), "512");
  EXPECT_EQ(format_magnitude(5.25e6), "5.25 M");
  EXPECT_EQ(format_magnitude(999.999e6), "1.00 B");
  EXPECT_EQ(format_magnitude(671.03e9), "671.03 B");
  EXPECT_EQ(format_magnitude(1026.4e9), "1.0264 T");
}

TEST(Text, Durations) {
  EXPECT_EQ(format_duration(0), "0 s");
  EXPECT_EQ(format_duration(350e-6), "350 us");
  EXPECT_EQ(format_duration(0.0123), "12.3 ms");
  EXPECT_EQ(format_duration(1.92), "1.92 s");
  EXPECT_EQ(format_duration(252), "4 min 12 s");
  EXPECT_EQ(format_duration(7500), "2 h 05 min");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::quiet_NaN()), "?");
  EXPECT_EQ(format_clock(9), "0:09");
  EXPECT_EQ(format_clock(3723.2), "1:02:03");
  EXPECT_EQ(format_clock(std::numeric_limits<double>::infinity()), "?");
}

TEST(Text, EditDistance) {
  EXPECT_EQ(edit_distance("", ""), 0U);
  EXPECT_EQ(edit_distance("", "abc"), 3U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  EXPECT_EQ(edit_distance("ep_sise", "ep_size"), 1U);
  EXPECT_EQ(edit_distance("ep_szie", "ep_size"), 1U);
  EXPECT_EQ(edit_distance("size", "ep_size"), edit_distance("ep_size", "size"));
}

TEST(Text, Nearest) {
  const std::array<std::string, 4> keys{"tp_size", "ep_size", "sequence_parallel", "lr"};
  EXPECT_EQ(nearest("ep_sise", keys), "ep_size");
  EXPECT_EQ(nearest("sequense_paralel", keys), "sequence_parallel");
  EXPECT_EQ(nearest("xp_size", keys), "tp_size");  // of equals the first
  EXPECT_EQ(nearest("zz", keys), "");              // nothing in common with "lr"
  EXPECT_EQ(nearest("checkpoint_dir", keys), "");
  EXPECT_EQ(nearest("anything", {}), "");
}

}  // namespace
}  // namespace sluice
