#include "training/rank_results.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace sluice {
namespace {

TEST(RankResults, TravelAsText) {
  const ProcessResult result{.threads = 3,
                             .ranks = {{.load_factor = 1.0 / 3, .memory = uint64_t{1} << 50, .planned = 7},
                                       {.load_factor = 2,
                                        .memory = 1,
                                        .planned = 2,
                                        .grown = {{.arena = "chunk 0 activations 1", .chunks = 2, .bytes = 99},
                                                  {.arena = "scratch", .chunks = 1, .bytes = 3}}}}};
  const ProcessResult read = process_result_of(to_text(result));
  EXPECT_EQ(to_text(read), to_text(result));
  EXPECT_EQ(read.ranks[0].load_factor, 1.0 / 3);
  EXPECT_EQ(read.ranks[0].memory, uint64_t{1} << 50);
  ASSERT_EQ(read.ranks[1].grown.size(), 2U);
  EXPECT_EQ(read.ranks[1].grown[0].arena, "chunk 0 activations 1");
  EXPECT_EQ(read.ranks[1].grown[1].bytes, 3U);
  EXPECT_THROW(process_result_of("2 1\n0.5 1"), Error);
  // Alone it is one's own.
  EXPECT_EQ(to_text(gather(result, nullptr).at(0)), to_text(result));
}

}  // namespace
}  // namespace sluice
