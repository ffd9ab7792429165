#include "data/sampling.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"

namespace sluice {
namespace {

TEST(Sampling, IdsByHand) {
  const Sampling sampling{.global_batch = 12, .micro_batch = 2, .dp = 3};
  EXPECT_EQ(sampling.micro_batches(), 2);
  EXPECT_EQ(sampling.sample_ids(0, 0, 0), (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(sampling.sample_ids(0, 0, 2), (std::vector<std::int64_t>{4, 5}));
  EXPECT_EQ(sampling.sample_ids(0, 1, 0), (std::vector<std::int64_t>{6, 7}));
  EXPECT_EQ(sampling.sample_ids(5, 1, 2), (std::vector<std::int64_t>{70, 71}));
}

// Micro-batch m of rank d among dp ranks is micro-batch m * dp + d of a single rank.
TEST(Sampling, OneRankSeesTheMicroBatchesOfManyInOrder) {
  for (const std::int64_t dp : {1, 2, 3, 4, 8}) {
    const Sampling many{.global_batch = 48, .micro_batch = 2, .dp = dp};
    const Sampling one{.global_batch = 48, .micro_batch = 2, .dp = 1};
    many.check();
    ASSERT_EQ(many.micro_batches() * dp, one.micro_batches());
    std::int64_t next = 3 * 48;
    for (std::int64_t m = 0; m < many.micro_batches(); ++m) {
      for (std::int64_t d = 0; d < dp; ++d) {
        EXPECT_EQ(many.sample_ids(3, m, d), one.sample_ids(3, m * dp + d, 0));
        for (const std::int64_t id : many.sample_ids(3, m, d)) EXPECT_EQ(id, next++);
      }
    }
    EXPECT_EQ(next, 4 * 48);
  }
}

TEST(Sampling, ImpossibleSizesAreUserErrors) {
  const auto hint = [](const Sampling& sampling) {
    try {
      sampling.check();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::user);
      return std::string(error.what()) + ": " + error.hint();
    }
    return std::string("no error");
  };
  EXPECT_EQ(hint({.global_batch = 10, .micro_batch = 2, .dp = 4}),
            "global batch size 10 is not a multiple of 4 data-parallel ranks x micro-batch size 2: "
            "the nearest that are: 8, 16");
  EXPECT_EQ(hint({.global_batch = 4, .micro_batch = 2, .dp = 4}),
            "global batch size 4 is not a multiple of 4 data-parallel ranks x micro-batch size 2: "
            "the smallest that is: 8");
  EXPECT_EQ(hint({.global_batch = 0, .micro_batch = 1, .dp = 1}),
            "global batch size 0, micro-batch size 1, 1 data-parallel ranks: each must be at least 1");
  constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max();
  EXPECT_NE(hint({.global_batch = 8, .micro_batch = huge, .dp = huge}), "no error");
  EXPECT_EQ(hint({.global_batch = 8, .micro_batch = 2, .dp = 4}), "no error");
}

TEST(Sampling, RefusesWhatIsNotThere) {
  const Sampling sampling{.global_batch = 4, .micro_batch = 1, .dp = 2};
  EXPECT_THROW(sampling.sample_ids(0, 2, 0), Error);
  EXPECT_THROW(sampling.sample_ids(0, 0, 2), Error);
  EXPECT_THROW(sampling.sample_ids(-1, 0, 0), Error);
}

}  // namespace
}  // namespace sluice
