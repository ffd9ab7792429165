#include "base/streaming_copy.h"

#include <gtest/gtest.h>

#include <vector>

namespace sluice {
namespace {

TEST(StreamingCopy, CopiesExactlyItsBytesFromAndToAnywhere) {
  constexpr size_t kMost = 300;
  std::vector<std::byte> from(kMost + 100);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 7 + 1);
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{15}, size_t{16}, size_t{17}, size_t{64}, size_t{255}, kMost}) {
    for (size_t to_at = 0; to_at < 33; ++to_at) {
      for (const size_t from_at : {size_t{0}, size_t{3}, to_at}) {
        std::vector<std::byte> to(kMost + 100, std::byte{0xee}), expected = to;
        std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(from_at), bytes,
                    expected.begin() + static_cast<std::ptrdiff_t>(to_at));
        streaming_copy(to.data() + to_at, from.data() + from_at, bytes);
        ASSERT_EQ(to, expected) << bytes << " bytes from " << from_at << " to " << to_at;
      }
    }
  }
}

}  // namespace
}  // namespace sluice
