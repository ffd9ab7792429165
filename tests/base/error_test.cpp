#include "base/error.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(Error, DescribesPlaceMessageAndHint) {
  const Error error = user_error("ep_size {} does not divide {}", 48, 128).at("a.yaml:3").advise("use 32 or 64");
  EXPECT_EQ(error.kind(), ErrorKind::user);
  EXPECT_EQ(describe(error), "a.yaml:3: ep_size 48 does not divide 128\n       use 32 or 64");
  EXPECT_EQ(describe(runtime_failure("gone")), "gone");
}

TEST(Error, APlaceIsOfOneLine) {
  EXPECT_EQ(describe(user_error("bad").at("two\nlines\033[K.yaml:3")), "two\\x0alines\\x1b[K.yaml:3: bad");
}

TEST(Error, RequireThrowsOnlyWhenBroken) {
  EXPECT_NO_THROW(require(true, "{}", 1));
  try {
    require(false, "bad {}", 7);
    FAIL() << "require(false) returned";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::internal);
    EXPECT_STREQ(error.what(), "bad 7");
  }
}

}  // namespace
}  // namespace sluice
