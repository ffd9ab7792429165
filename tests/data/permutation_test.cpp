#include "data/permutation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include "base/error.h"

namespace sluice {
namespace {

std::vector<std::int64_t> order(std::uint64_t seed, std::int64_t epoch, std::int64_t size) {
  const Permutation permutation(seed, size);
  std::vector<std::int64_t> all;
  for (std::int64_t i = 0; i < size; ++i) all.push_back(permutation(epoch, i));
  return all;
}

TEST(Permutation, IsABijection) {
  int cases = 0;
  for (const std::int64_t size :
       {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 17, 31, 63, 64, 65, 99, 100, 101, 1000, 1009}) {
    for (const std::uint64_t seed : {0, 1, 1234}) {
      for (const std::int64_t epoch : {0, 1, 1000}) {
        std::vector<bool> seen(size, false);
        for (const std::int64_t at : order(seed, epoch, size)) {
          ASSERT_TRUE(at >= 0 && at < size && !seen[at]) << size << " " << seed << " " << epoch << " " << at;
          seen[at] = true;
        }
        ++cases;
      }
    }
  }
  EXPECT_EQ(cases, 22 * 9);
}

TEST(Permutation, DependsOnSeedAndEpoch) {
  EXPECT_EQ(order(3, 2, 100), order(3, 2, 100));
  EXPECT_NE(order(3, 2, 100), order(3, 3, 100));
  EXPECT_NE(order(3, 2, 100), order(4, 2, 100));
}

// All six orders of three occur, and every value is about equally often at every index of ten.
TEST(Permutation, IsRandom) {
  std::set<std::vector<std::int64_t>> orders;
  for (std::int64_t epoch = 0; epoch < 200; ++epoch) orders.insert(order(5, epoch, 3));
  EXPECT_EQ(orders.size(), 6U);

  constexpr int epochs = 2000, size = 10;
  std::vector<int> count(size * size, 0);
  for (std::int64_t epoch = 0; epoch < epochs; ++epoch) {
    const std::vector<std::int64_t> positions = order(5, epoch, size);
    for (int i = 0; i < size; ++i) ++count[i * size + positions[i]];
  }
  // Chi-squared of a 10 x 10 table, 81 degrees of freedom: mean 81, deviation 13.
  double chi = 0;
  for (const int n : count) chi += std::pow(n - epochs / size, 2) / (epochs / size);
  EXPECT_LT(chi, 81 + 6 * 13);
}

TEST(Permutation, LargeSizesNeedNoTable) {
  const Permutation permutation(1, std::int64_t{1} << 52);
  std::set<std::int64_t> seen;
  for (std::int64_t i = 0; i < 1000; ++i) seen.insert(permutation(0, (std::int64_t{1} << 52) - 1 - i));
  EXPECT_EQ(seen.size(), 1000U);
}

TEST(Permutation, RefusesWhatIsNotThere) {
  EXPECT_THROW(Permutation(0, 0), Error);
  EXPECT_THROW(Permutation(0, 3)(0, 3), Error);
  EXPECT_THROW(Permutation(0, 3)(0, -1), Error);
  EXPECT_THROW(Permutation(0, 3)(-1, 0), Error);
}

}  // namespace
}  // namespace sluice
