#include "base/hash.h"

#include <gtest/gtest.h>

#include <array>

namespace sluice {
namespace {

// XXH3 with seed 0 of nothing, from the xxhash specification: values may not change between machines or releases.
TEST(Hash, IsTheStandardXxh3) {
  EXPECT_EQ(hash64(""), 0x2d06800538d394c2U);
}

TEST(Hash, DependsOnEveryByteAndTheSeed) {
  EXPECT_EQ(hash64("blocks.0.wq"), hash64("blocks.0.wq"));
  EXPECT_NE(hash64("blocks.0.wq"), hash64("blocks.1.wq"));
  EXPECT_NE(hash64("blocks.0.wq", 1), hash64("blocks.0.wq", 2));
}

TEST(Hash, BytesAndTextAgree) {
  const std::array bytes{std::byte{'a'}, std::byte{'b'}};
  EXPECT_EQ(hash64(bytes, 3), hash64("ab", 3));
}

}  // namespace
}  // namespace sluice
