// The same seed gives the same bits: with one thread and two, again, and in another process.
#include <gtest/gtest.h>

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "support/training.h"

namespace sluice::test {
namespace {

// Large enough that every fast operation is cut into several chunks.
Training steps(int count, int threads, const std::string& dtype) {
  return train({"one",
                1,
                {"--runtime.dtype=" + dtype, "--benchmark.balance=router", "--dataset.seq_len=128",
                 "--model.config.vocab_size=300", "--model.config.num_hidden_layers=2",
                 "--model.config.max_position_embeddings=128", "--step_scheduler.global_batch_size=4",
                 "--step_scheduler.local_batch_size=2"}},
               {.device = DeviceKind::cpu, .threads = threads, .steps = count});
}

Training twenty_steps(int threads) {
  return steps(20, threads, "f32");
}

// The bits of all losses, in hexadecimal.
std::string bits_of(const Training& training) {
  std::string text;
  for (const double loss : training.losses) text += fmt::format("{:016x} ", std::bit_cast<uint64_t>(loss));
  return text;
}

TEST(Determinism, OneThreadAndTwoGiveTheSameBits) {
  const Training one = twenty_steps(1), two = twenty_steps(2);
  ASSERT_EQ(one.losses.size(), size_t{20});
  EXPECT_LT(one.losses.back(), one.losses.front());
  EXPECT_EQ(bits_of(one), bits_of(two));
  EXPECT_EQ(one.weights, two.weights);
}

TEST(Determinism, AnyNumberOfThreadsGivesTheSameBitsInBf16) {
  constexpr int kSteps = 3;
  const Training one = steps(kSteps, 1, "bf16");
  ASSERT_EQ(one.losses.size(), static_cast<size_t>(kSteps));
  EXPECT_NE(one.losses.back(), one.losses.front());
  for (const int threads : {2, 3}) {
    const Training more = steps(kSteps, threads, "bf16");
    EXPECT_EQ(bits_of(one), bits_of(more)) << threads;
    EXPECT_EQ(one.weights, more.weights) << threads;
  }
}

// A death test in this style runs in a fresh process of this binary; there it prints its losses and ends.
TEST(Determinism, AnotherProcessGivesTheSameBits) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto print_losses = [] {
    std::cerr << bits_of(twenty_steps(2)) << std::endl;
    std::exit(0);
  };
  EXPECT_EXIT(print_losses(), testing::ExitedWithCode(0), bits_of(twenty_steps(1)));
}

}  // namespace
}  // namespace sluice::test
