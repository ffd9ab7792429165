// Bytes of a process into lines that name it.
#include "launch/line_relay.h"

#include <gtest/gtest.h>

#include <vector>

namespace sluice::launch {
namespace {

// What has come out at the end, given in pieces of `size`.
std::string relayed(const std::string& prefix, const std::string& text, size_t size) {
  LineRelay relay(prefix);
  std::string out;
  for (size_t at = 0; at < text.size(); at += size) out += relay.add(std::string_view(text).substr(at, size));
  return out + relay.finish();
}

TEST(LineRelay, WholeLinesBehindThePrefix) {
  const std::vector<std::pair<std::string, std::string>> cases{{"", ""},
                                                               {"a\n", "[3] a\n"},
                                                               {"a\n\nb", "[3] a\n[3] \n[3] b\n"},
                                                               {"a\r\nb\r\n", "[3] a\n[3] b\n"},
                                                               // Of what was written over, the last.
                                                               {"step 1\rstep 2\rstep 3\n", "[3] step 3\n"},
                                                               {"step 1\rstep 2\r", "[3] step 2\n"},
                                                               {"\r\n\r", "[3] \n[3] \n"},
                                                               {"\xff\x1b\n", "[3] \xff\x1b\n"}};
  for (const auto& [text, expected] : cases) {
    for (const size_t size : {size_t{1}, size_t{2}, size_t{100}}) {
      EXPECT_EQ(relayed("[3] ", text, size), expected) << text << " in pieces of " << size;
    }
  }
}

TEST(LineRelay, WithoutAPrefixTheSameBytesInWholeLines) {
  const std::string text = "a\rb\r\nno end\r";
  EXPECT_EQ(relayed("", text, 1), text);
  LineRelay relay("");
  EXPECT_EQ(relay.add("a\nb"), "a\n");
  EXPECT_EQ(relay.add("c\n"), "bc\n");
}

TEST(LineRelay, ALineWithoutEndIsLetGo) {
  LineRelay relay("[3] ");
  const std::string piece(50'000, 'x');
  EXPECT_EQ(relay.add(piece), "");
  EXPECT_TRUE(relay.add(piece) == "[3] " + piece + piece + "\n");
  // Nor is what is written over for ever kept.
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(relay.add(piece + "\r").empty());
  EXPECT_TRUE(relay.finish() == "[3] " + piece + "\n");
}

}  // namespace
}  // namespace sluice::launch
