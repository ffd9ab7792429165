#include "data/mock.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/error.h"
#include "data/batch.h"
#include "data/sampling.h"

namespace sluice {
namespace {

std::vector<std::int32_t> tokens_of(const Dataset& dataset, std::int64_t id, std::size_t count) {
  std::vector<std::int32_t> tokens(count, -1);
  dataset.sample(id, tokens);
  return tokens;
}

TEST(MockDataset, TokensDependOnSeedSampleAndPositionOnly) {
  const MockDataset data(7, 151936), again(7, 151936), other(8, 151936);
  EXPECT_EQ(tokens_of(data, 5, 33), tokens_of(again, 5, 33));
  EXPECT_NE(tokens_of(data, 5, 33), tokens_of(other, 5, 33));
  EXPECT_NE(tokens_of(data, 5, 33), tokens_of(data, 6, 33));
  // A longer sample begins with the shorter one.
  std::vector<std::int32_t> longer = tokens_of(data, 5, 65);
  longer.resize(33);
  EXPECT_EQ(longer, tokens_of(data, 5, 33));
}

// Pinned: recorded losses depend on it.
TEST(MockDataset, FirstTokens) {
  EXPECT_EQ(tokens_of(MockDataset(1234, 1000), 0, 6), (std::vector<std::int32_t>{450, 837, 258, 623, 732, 282}));
}

TEST(MockDataset, CoversTheVocabularyEvenly) {
  constexpr std::int64_t vocab = 50, count = 50'000;
  std::vector<std::int64_t> seen(vocab, 0);
  for (const std::int32_t token : tokens_of(MockDataset(3, vocab), 11, count)) {
    ASSERT_TRUE(token >= 0 && token < vocab);
    ++seen[token];
  }
  // Each is binomial with mean 1000 and deviation 31.
  EXPECT_GT(*std::ranges::min_element(seen), 1000 - 6 * 31);
  EXPECT_LT(*std::ranges::max_element(seen), 1000 + 6 * 31);
}

TEST(MockDataset, RepeatsAfterItsSamples) {
  const MockDataset data(7, 100, 4);
  EXPECT_EQ(data.size(), 4);
  EXPECT_EQ(tokens_of(data, 1, 20), tokens_of(data, 9, 20));
  EXPECT_NE(tokens_of(data, 1, 20), tokens_of(data, 3, 20));
  const MockDataset endless(7, 100);
  EXPECT_EQ(tokens_of(endless, std::numeric_limits<std::int64_t>::max() - 1, 3).size(), 3U);
}

TEST(MockDataset, ImpossibleSizesAreUserErrors) {
  EXPECT_THROW(MockDataset(0, 0), Error);
  EXPECT_THROW(MockDataset(0, std::int64_t{1} << 31), Error);
  EXPECT_THROW(MockDataset(0, 10, 0), Error);
  EXPECT_EQ(tokens_of(MockDataset(0, 1), 0, 3), (std::vector<std::int32_t>{0, 0, 0}));
}

TEST(Batch, LabelsAreTheNextTokens) {
  const MockDataset data(7, 1000);
  const std::vector<std::int64_t> ids{12, 3};
  const Batch batch = make_batch(data, ids, 5);
  EXPECT_EQ(batch.sample_ids, ids);
  ASSERT_EQ(batch.tokens.size(), 10U);
  ASSERT_EQ(batch.labels.size(), 10U);
  for (std::size_t b = 0; b < 2; ++b) {
    const std::vector<std::int32_t> tokens = tokens_of(data, ids[b], 6);
    for (std::size_t i = 0; i < 5; ++i) {
      EXPECT_EQ(batch.tokens[b * 5 + i], tokens[i]);
      EXPECT_EQ(batch.labels[b * 5 + i], tokens[i + 1]);
    }
  }
  EXPECT_EQ(count_label_tokens(batch.labels), 10);
}

TEST(Batch, SameTokensOnOneRankAndOnFour) {
  const MockDataset data(1, 1000);
  const Sampling four{.global_batch = 16, .micro_batch = 2, .dp = 4},
      one{.global_batch = 16, .micro_batch = 2, .dp = 1};
  for (std::int64_t m = 0; m < four.micro_batches(); ++m) {
    for (std::int64_t d = 0; d < 4; ++d) {
      const Batch batch = make_batch(data, four.sample_ids(9, m, d), 8);
      const Batch alone = make_batch(data, one.sample_ids(9, m * 4 + d, 0), 8);
      EXPECT_EQ(batch.tokens, alone.tokens);
      EXPECT_EQ(batch.labels, alone.labels);
      EXPECT_EQ(batch.sample_ids, alone.sample_ids);
    }
  }
}

TEST(Batch, EdgeSizes) {
  const MockDataset data(1, 1000);
  EXPECT_TRUE(make_batch(data, {}, 4).tokens.empty());
  const std::vector<std::int64_t> ids{0};
  EXPECT_EQ(make_batch(data, ids, 1).labels.size(), 1U);
  EXPECT_THROW(make_batch(data, ids, 0), Error);
}

TEST(Batch, IgnoredLabelsDoNotCount) {
  EXPECT_EQ(count_label_tokens(std::vector<std::int32_t>{3, -100, 0, -100}), 2);
  EXPECT_EQ(count_label_tokens({}), 0);
}

}  // namespace
}  // namespace sluice
