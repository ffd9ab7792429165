#include "device/pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"

namespace sluice {
namespace {

TEST(Pool, RunsEveryChunkOnceWithAValidWorker) {
  for (const int threads : {1, 2, 3, 5}) {
    Pool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t chunks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> hits(static_cast<size_t>(chunks));
      std::atomic<int> bad_workers{0};
      pool.run(chunks, [&](int64_t chunk, int worker) {
        hits[static_cast<size_t>(chunk)].fetch_add(1);
        if (worker < 0 || worker >= threads) bad_workers.fetch_add(1);
      });
      for (const auto& h : hits) ASSERT_EQ(h.load(), 1);
      EXPECT_EQ(bad_workers.load(), 0);
    }
  }
}

TEST(Pool, RangesCoverAllAndKeepTheirGrain) {
  Pool pool(3);
  std::vector<int> hits(1003, 0);
  std::atomic<int> ranges{0};
  pool.run_ranges(1003, 100, [&](int64_t begin, int64_t end, int) {
    EXPECT_EQ(begin % 100, 0);
    EXPECT_LE(end - begin, 100);
    for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
    ranges.fetch_add(1);
  });
  EXPECT_EQ(ranges.load(), 11);
  EXPECT_EQ(std::accumulate(hits.begin(), hits.end(), 0), 1003);
  EXPECT_EQ(*std::max_element(hits.begin(), hits.end()), 1);
  pool.run_ranges(0, 100, [&](int64_t, int64_t, int) { ADD_FAILURE(); });
}

TEST(Pool, AWorkerHasOneChunkAtATime) {
  Pool pool(4);
  std::vector<std::atomic<int>> busy(4);
  pool.run(400, [&](int64_t, int worker) {
    auto& mine = busy[static_cast<size_t>(worker)];
    EXPECT_EQ(mine.fetch_add(1), 0);
    mine.fetch_sub(1);
  });
}

TEST(Pool, RethrowsTheLowestFailureAfterAllChunks) {
  for (const int threads : {1, 2, 4}) {
    Pool pool(threads);
    for (int repeat = 0; repeat < 20; ++repeat) {
      std::atomic<int> done{0};
      std::string message;
      try {
        pool.run(50, [&](int64_t chunk, int) {
          done.fetch_add(1);
          if (chunk % 10 == 7) throw std::runtime_error("chunk " + std::to_string(chunk));
        });
        ADD_FAILURE() << "no exception";
      } catch (const std::runtime_error& error) {
        message = error.what();
      }
      EXPECT_EQ(message, "chunk 7");
      EXPECT_EQ(done.load(), 50);
      pool.run(3, [&](int64_t, int) { done.fetch_add(1); });
      EXPECT_EQ(done.load(), 53);
    }
  }
}

TEST(Pool, ANestedCallIsAnInternalError) {
  for (const int threads : {1, 2}) {
    Pool pool(threads);
    std::atomic<int> refused{0};
    pool.run(8, [&](int64_t, int) {
      try {
        pool.run(1, [](int64_t, int) {});
      } catch (const Error& error) {
        if (error.kind() == ErrorKind::internal) refused.fetch_add(1);
      }
    });
    EXPECT_EQ(refused.load(), 8);
  }
}

TEST(Pool, SixtyFourRanksShareItsThreads) {
  Pool pool(3);
  constexpr int kRanks = 64;
  constexpr int kRuns = 400;
  std::atomic<int> inside{0};
  std::atomic<int> overlaps{0};
  std::atomic<int> wrong{0};
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < kRanks; ++rank) {
    ranks.emplace_back([&] {
      for (int run = 0; run < kRuns; ++run) {
        std::vector<int> out(5, 0);  // plain memory: TSan sees any chunk that is still running when run() returns
        pool.run(5, [&](int64_t chunk, int) {
          if (inside.fetch_add(1) >= 3) overlaps.fetch_add(1);
          out[static_cast<size_t>(chunk)] += 1;
          inside.fetch_sub(1);
        });
        if (std::accumulate(out.begin(), out.end(), 0) != 5) wrong.fetch_add(1);
      }
    });
  }
  for (auto& rank : ranks) rank.join();
  EXPECT_EQ(overlaps.load(), 0);
  EXPECT_EQ(wrong.load(), 0);
}

// A rank need not wait until another's operation has ended, as long as there are threads.
TEST(Pool, TwoRanksComputeSideBySide) {
  Pool pool(2);
  std::atomic<int> arrived{0};
  const auto meet = [&] {
    pool.run(1, [&](int64_t, int worker) {
      EXPECT_EQ(worker, 0);
      arrived.fetch_add(1);
      while (arrived.load() < 2) std::this_thread::yield();
    });
  };
  std::thread other(meet);
  meet();
  other.join();
  EXPECT_EQ(arrived.load(), 2);
}

// While ranks take turns an operation begins on its caller, and gets help once it takes long.
TEST(Pool, ALongOperationGetsHelpAmongOtherRanks) {
  Pool pool(2);
  std::thread([&] { pool.run(1, [](int64_t, int) {}); }).join();
  std::thread([&] { pool.run(1, [](int64_t, int) {}); }).join();
  std::atomic<bool> helped{false};
  pool.run(1'000'000, [&](int64_t, int worker) {
    if (worker != 0) helped = true;
    if (!helped) std::this_thread::sleep_for(std::chrono::microseconds(10));
  });
  EXPECT_TRUE(helped);
}

TEST(Pool, SleepsWhenIdleAndWakes) {
  Pool pool(2);
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    // Both chunks wait for each other: the sleeping worker must have come.
    std::atomic<int> arrived{0};
    pool.run(2, [&](int64_t, int) {
      arrived.fetch_add(1);
      while (arrived.load() < 2) std::this_thread::yield();
    });
    EXPECT_EQ(arrived.load(), 2);
  }
}

TEST(Pool, ManyMoreThreadsThanCoresStillFinish) {
  Pool pool(48);
  std::atomic<int64_t> total{0};
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 50; ++i) pool.run(200, [&](int64_t chunk, int) { total.fetch_add(chunk); });
  EXPECT_EQ(total.load(), 50 * 199 * 100);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

}  // namespace
}  // namespace sluice
