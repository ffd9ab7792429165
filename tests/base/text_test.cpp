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

TEST(Text, SharesAboveOneAreNotNumbers) {
  EXPECT_EQ(format_share(0.4291, 1, "cache"), "42.9 %");
  EXPECT_EQ(format_share(0.668, 0, "cache"), "67 %");
  EXPECT_EQ(format_share(1, 1, "cache"), "100.0 %");
  EXPECT_EQ(format_share(1.0004, 1, "cache"), "100.0 %");
  EXPECT_EQ(format_share(1.001, 1, "cache"), "cache");
  EXPECT_EQ(format_share(5.42, 0, "cache"), "cache");
}

TEST(Text, ColumnsAreCharacters) {
  EXPECT_EQ(columns_of("abc"), 3U);
  EXPECT_EQ(columns_of("█▌é"), 3U);
  EXPECT_EQ(clipped("█▌é", 2), "█▌");
  EXPECT_EQ(clipped("abc", 5), "abc");
  EXPECT_EQ(clipped("abc", 0), "");
}

TEST(Text, WrapBreaksAtSpaces) {
  EXPECT_EQ(wrap("aa bb cc", 5, 2), "aa bb\n  cc");
  EXPECT_EQ(wrap("aa bb cc", 8, 2), "aa bb cc");
  EXPECT_EQ(wrap("██ ██ ██", 5, 0), "██ ██\n██");
  EXPECT_EQ(wrap("a longerword b", 4, 1), "a\n longerword\n b") << "words stay whole";
  EXPECT_EQ(wrap("  aa bb", 5, 4), "  aa\n    bb");
  EXPECT_EQ(wrap("aa bb\n  cc dd", 5, 3), "aa bb\n  cc\n   dd") << "each line on its own";
}

TEST(Text, Utf8Lengths) {
  EXPECT_EQ(utf8_length("a"), 1U);
  EXPECT_EQ(utf8_length("é"), 2U);
  EXPECT_EQ(utf8_length("█x"), 3U);
  EXPECT_EQ(utf8_length("\xF0\x9F\x98\x80"), 4U);
  for (const char* bad :
       {"", "\x80", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xFF", "\xE2\x96"}) {
    EXPECT_EQ(utf8_length(bad), 0U) << bad;
  }
}

TEST(Text, NothingATerminalObeysStays) {
  EXPECT_EQ(printable("plain, é █ \xF0\x9F\x98\x80\n\tnext"), "plain, é █ \xF0\x9F\x98\x80\n\tnext");
  EXPECT_EQ(printable("a\x1b[2Jb"), "a\\x1b[2Jb");
  EXPECT_EQ(printable(std::string_view("\0\a\r\x7f", 4)), "\\x00\\x07\\x0d\\x7f");
  EXPECT_EQ(printable("\xC2\x9B"
                      "2J"),
            "\\xc2\\x9b2J")
      << "CSI of C1";
  EXPECT_EQ(printable("\xC2\xA0"), "\xC2\xA0") << "the first that is none";
  EXPECT_EQ(printable("\x9B"
                      "2J \xE2\x96"),
            "\\x9b2J \\xe2\\x96")
      << "no UTF-8";
  EXPECT_EQ(printable_line("a\nb\tc"), "a\\x0ab\\x09c");
}

TEST(Text, PrintableTakesTextInAnyParts) {
  const std::string text = "x é █ \x1b[0m \xF0\x9F\x98\x80 \xE2\x96 \xFF end \xE2";
  for (size_t part = 1; part < text.size(); ++part) {
    Printable shown;
    std::string result;
    for (size_t at = 0; at < text.size(); at += part) result += shown.add(text.substr(at, part));
    EXPECT_EQ(result + shown.finish(), printable(text)) << part;
  }
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

TEST(Text, AWordForAShell) {
  EXPECT_EQ(quoted_for_shell("runs/a-1.yaml"), "runs/a-1.yaml");
  EXPECT_EQ(quoted_for_shell("my run"), "'my run'");
  EXPECT_EQ(quoted_for_shell("it's"), "'it'\\''s'");
  EXPECT_EQ(quoted_for_shell(""), "''");
}

}  // namespace
}  // namespace sluice
