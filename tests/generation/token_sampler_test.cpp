#include "generation/token_sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/error.h"
#include "support/host_tensor.h"

namespace sluice::test {
namespace {

// What may be drawn, by the definitions one after the other, on lists sorted by hand.
std::map<int32_t, double> expected(const std::vector<double>& logits, const SamplingOptions& options) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(
      order, [&](int32_t a, int32_t b) { return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)]; });
  if (options.top_k > 0) order.resize(std::min(order.size(), static_cast<size_t>(options.top_k)));
  std::map<int32_t, double> all, kept;
  double total = 0;
  for (const int32_t token : order)
    total += all[token] = std::exp(logits[static_cast<size_t>(token)] / options.temperature);
  double mass = 0;
  for (const int32_t token : order) {
    if (mass >= options.top_p * total) break;
    mass += kept[token] = all[token];
  }
  for (auto& [token, p] : kept) p /= mass;
  return kept;
}

const std::vector<SamplingOptions> kOptions{{.temperature = 1},
                                            {.temperature = 0.6},
                                            {.temperature = 1, .top_k = 5},
                                            {.temperature = 1, .top_p = 0.7},
                                            {.temperature = 1.4, .top_k = 9, .top_p = 0.8},
                                            {.temperature = 2, .top_k = 100, .top_p = 0.95},
                                            {.temperature = 0.8, .top_k = 1}};

TEST(Candidates, AreThoseOfTheDefinition) {
  const std::vector<double> logits = random_values(40, 3);
  for (const SamplingOptions& options : kOptions) {
    const std::vector<Candidate> got = candidates(logits, options);
    const std::map<int32_t, double> want = expected(logits, options);
    ASSERT_EQ(got.size(), want.size());
    for (const Candidate& c : got) {
      ASSERT_TRUE(want.contains(c.token));
      EXPECT_NEAR(c.probability, want.at(c.token), 1e-14);
    }
  }
}

TEST(Candidates, EqualLogitsAreTakenFromTheLowestToken) {
  const std::vector<double> logits{1, 3, 3, 0, 3};
  EXPECT_EQ(candidates(logits, {}).front().token, 1);
  const std::vector<Candidate> two = candidates(logits, {.temperature = 1, .top_k = 2});
  ASSERT_EQ(two.size(), 2U);
  EXPECT_EQ(two[0].token, 1);
  EXPECT_EQ(two[1].token, 2);
  EXPECT_EQ(two[0].probability, 0.5);
  // A share that one token has alone.
  EXPECT_EQ(candidates(std::vector<double>{9, 0, 0}, {.temperature = 1, .top_p = 1e-9}).size(), 1U);
}

TEST(Candidates, ExtremesStayNumbers) {
  const std::vector<double> wide{1e300, -1e300, 0};
  for (const double temperature : {1e-300, 1.0, 1e300}) {
    double sum = 0;
    for (const Candidate& c : candidates(wide, {.temperature = temperature})) {
      EXPECT_TRUE(std::isfinite(c.probability));
      sum += c.probability;
    }
    EXPECT_NEAR(sum, 1, 1e-15);
  }
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    for (const double temperature : {0.0, 1.0}) {
      EXPECT_THROW(candidates(std::vector<double>{0, bad, 1}, {.temperature = temperature}), Error);
    }
  }
}

// Pearson's statistic against the exact probabilities, five standard deviations allowed; over positions of one sample,
// and over samples at one position.
TEST(DrawToken, FollowsTheProbabilities) {
  constexpr int kDraws = 30'000;
  const std::vector<double> logits = random_values(12, 8);
  int compared = 0;
  for (SamplingOptions options : kOptions) {
    options.seed = 11;
    const std::map<int32_t, double> want = expected(logits, options);
    for (const bool over_samples : {false, true}) {
      std::map<int32_t, int> counts;
      for (int i = 0; i < kDraws; ++i) {
        ++counts[draw_token(logits, options, over_samples ? i : 2, over_samples ? 7 : i)];
      }
      double chi2 = 0;
      int seen = 0;
      for (const auto& [token, p] : want) {
        const double mean = p * kDraws;
        ASSERT_GT(mean, 5);
        chi2 += (counts[token] - mean) * (counts[token] - mean) / mean;
        seen += counts[token];
      }
      EXPECT_EQ(seen, kDraws) << "something else was drawn";
      const double freedom = static_cast<double>(want.size()) - 1;
      EXPECT_LE(chi2, freedom + 5 * std::sqrt(2 * freedom));
      ++compared;
    }
  }
  EXPECT_EQ(compared, 14);
}

TEST(DrawToken, IsAFunctionOfSeedSampleAndPosition) {
  const std::vector<double> logits(1000, 0.0);
  const auto draw = [&](uint64_t seed, int64_t sample, int64_t position) {
    return draw_token(logits, {.temperature = 1, .seed = seed}, sample, position);
  };
  EXPECT_EQ(draw(1, 2, 3), draw(1, 2, 3));
  EXPECT_NE(draw(1, 2, 3), draw(2, 2, 3));
  EXPECT_NE(draw(1, 2, 3), draw(1, 3, 3));
  EXPECT_NE(draw(1, 2, 3), draw(1, 2, 4));
  EXPECT_EQ(draw_token(std::vector<double>{0, 5, 5}, {.temperature = 0, .seed = 4}, 0, 0), 1);
}

}  // namespace
}  // namespace sluice::test
