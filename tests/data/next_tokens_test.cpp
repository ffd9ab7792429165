// What the extra layer reads and predicts: the token after the next, within a sequence.
#include <gtest/gtest.h>

#include "data/batch.h"
#include "ops/head_loss.h"

namespace sluice {
namespace {

TEST(NextTokens, AreThoseOfTheSameSequence) {
  const Batch batch{.tokens = {10, 11, 12, 20, 21, 22}, .labels = {11, 12, 13, 21, 22, 23}, .sample_ids = {0, 1}};
  // The last has none: its own token stands there, and its label is ignored.
  EXPECT_EQ(next_tokens(batch, 3), (std::vector<std::int32_t>{11, 12, 12, 21, 22, 22}));
  EXPECT_EQ(next_labels(batch, 3), (std::vector<std::int32_t>{12, 13, kIgnoredLabel, 22, 23, kIgnoredLabel}));
  EXPECT_EQ(count_label_tokens(next_labels(batch, 3)), 4);
}

TEST(NextTokens, OfSequencesOfOneToken) {
  const Batch batch{.tokens = {10, 20}, .labels = {11, 21}, .sample_ids = {0, 1}};
  EXPECT_EQ(next_tokens(batch, 1), batch.tokens);
  EXPECT_EQ(count_label_tokens(next_labels(batch, 1)), 0);
}

}  // namespace
}  // namespace sluice
