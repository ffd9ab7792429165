// Values of every collective against plain loops, for 1 to 8 ranks, inline and with workers.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>

#include "comm/inproc/inproc.h"

namespace sluice {
namespace {

class Collectives : public testing::TestWithParam<bool> {
 protected:
  void run(const std::function<void(Communicator&, Stream&)>& body) {
    for (const int ranks : {1, 2, 3, 4, 5, 8}) {
      std::atomic<int> ran = 0;
      run_ranks(ranks, {.timeout_s = 60, .async = GetParam()}, [&](Communicator& world) {
        Stream stream;
        body(world, stream);
        ++ran;
      });
      EXPECT_EQ(ran, ranks);
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Inproc, Collectives, testing::Bool(),
                         [](const auto& param) { return param.param ? "async" : "inline"; });

template <class T>
Tensor all_of(std::vector<T>& values) {
  return tensor_of(values.data(), {std::ssize(values)});
}

// What rank r holds at i: rounding makes the order of a sum visible.
template <class T>
T value(int rank, int64_t i) {
  const double v = std::sin(1.0 + rank * 37.0 + static_cast<double>(i) * 0.37) * std::pow(10.0, (rank * 7 + i) % 5);
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(static_cast<int64_t>(v) & 0x7f);
  } else {
    return T(v);
  }
}

template <class T>
std::vector<T> values(int rank, int64_t n) {
  std::vector<T> v(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) v[static_cast<size_t>(i)] = value<T>(rank, i);
  return v;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <class T>
T naive_sum(int ranks, int64_t i) {
  if constexpr (std::is_same_v<T, bf16>) {
    float sum = static_cast<float>(value<T>(0, i));
    for (int r = 1; r < ranks; ++r) sum += static_cast<float>(value<T>(r, i));
    return T(sum);
  } else {
    T sum = value<T>(0, i);
    for (int r = 1; r < ranks; ++r) sum += value<T>(r, i);
    return sum;
  }
}

template <class F>
void for_each_type(F&& f) {
  f(double{});
  f(float{});
  f(bf16{});
  f(int64_t{});
  f(int32_t{});
}

constexpr int64_t kSizes[] = {0, 1, 7, 1500};

TEST_P(Collectives, AllGatherConcatenatesInRankOrder) {
  run([](Communicator& world, Stream& stream) {
    const auto check = [&]<class T>(T) {
      for (const int64_t n : kSizes) {
        for (const bool in_place : {false, true}) {
          std::vector<T> in = values<T>(world.rank(), n);
          std::vector<T> out(static_cast<size_t>(n * world.size()));
          const Tensor all = all_of(out);
          const Tensor own = all.rows(n * world.rank(), n);
          if (in_place) std::copy(in.begin(), in.end(), out.begin() + n * world.rank());
          world.all_gather(stream, all, in_place ? own : all_of(in), "values").wait(stream);
          std::vector<T> expected;
          for (int r = 0; r < world.size(); ++r) {
            for (const T v : values<T>(r, n)) expected.push_back(v);
          }
          EXPECT_TRUE(same_bits(out, expected));
        }
      }
    };
    for_each_type(check);
    check(uint8_t{});
  });
}

TEST_P(Collectives, ReduceScatterAddsInRankOrder) {
  run([](Communicator& world, Stream& stream) {
    for_each_type([&]<class T>(T) {
      for (const int64_t n : kSizes) {
        for (const bool in_place : {false, true}) {
          std::vector<T> in = values<T>(world.rank(), n * world.size());
          std::vector<T> out(static_cast<size_t>(n));
          const Tensor own = all_of(in).rows(n * world.rank(), n);
          world.reduce_scatter(stream, in_place ? own : all_of(out), all_of(in), "values").wait(stream);
          if (in_place) out.assign(in.begin() + n * world.rank(), in.begin() + n * (world.rank() + 1));
          std::vector<T> expected;
          for (int64_t i = 0; i < n; ++i) expected.push_back(naive_sum<T>(world.size(), n * world.rank() + i));
          EXPECT_TRUE(same_bits(out, expected));
        }
      }
    });
  });
}

TEST_P(Collectives, AllReduceAddsInRankOrderOrTakesTheMaximum) {
  run([](Communicator& world, Stream& stream) {
    for_each_type([&]<class T>(T) {
      for (const int64_t n : kSizes) {
        std::vector<T> sum = values<T>(world.rank(), n);
        std::vector<T> max = sum;
        world.all_reduce(stream, all_of(sum), ReduceOp::sum, "values").wait(stream);
        world.all_reduce(stream, all_of(max), ReduceOp::max, "values").wait(stream);
        std::vector<T> expected_sum;
        std::vector<T> expected_max;
        for (int64_t i = 0; i < n; ++i) {
          expected_sum.push_back(naive_sum<T>(world.size(), i));
          double m = static_cast<double>(value<T>(0, i));
          for (int r = 1; r < world.size(); ++r) m = std::max(m, static_cast<double>(value<T>(r, i)));
          expected_max.push_back(T(m));
        }
        EXPECT_TRUE(same_bits(sum, expected_sum));
        EXPECT_TRUE(same_bits(max, expected_max));
      }
    });
  });
}

TEST_P(Collectives, ANaNSurvivesTheMaximum) {
  run([](Communicator& world, Stream& stream) {
    for (int bad = 0; bad < world.size(); ++bad) {
      std::vector<float> v = {world.rank() == bad ? std::numeric_limits<float>::quiet_NaN() : 1.0F, 2.0F};
      world.all_reduce(stream, all_of(v), ReduceOp::max, "norm").wait(stream);
      EXPECT_TRUE(std::isnan(v[0]));
      EXPECT_EQ(v[1], 2.0F);
    }
  });
}

// Rows from rank s to rank r: unequal, some empty.
int64_t rows_between(int s, int r, int seed) {
  return (s * 5 + r * 3 + seed) % 4;
}

TEST_P(Collectives, AllToAllMovesRowsInRankOrder) {
  run([](Communicator& world, Stream& stream) {
    const auto check = [&]<class T>(T) {
      for (int seed = 0; seed < 5; ++seed) {
        const int64_t width = 1 + seed * 3;
        const int self = world.rank();
        std::vector<int64_t> in_counts;
        std::vector<int64_t> out_counts;
        std::vector<T> expected;
        for (int r = 0; r < world.size(); ++r) {
          // With seed 4 nothing is sent at all.
          in_counts.push_back(seed == 4 ? 0 : rows_between(self, r, seed));
          out_counts.push_back(seed == 4 ? 0 : rows_between(r, self, seed));
          int64_t first = 0;
          for (int q = 0; q < self; ++q) first += rows_between(r, q, seed);
          for (int64_t i = 0; i < out_counts.back() * width; ++i) expected.push_back(value<T>(r, first * width + i));
        }
        const int64_t in_rows = std::accumulate(in_counts.begin(), in_counts.end(), int64_t{0});
        const int64_t out_rows = std::accumulate(out_counts.begin(), out_counts.end(), int64_t{0});
        std::vector<T> in = values<T>(self, in_rows * width);
        std::vector<T> out(static_cast<size_t>(out_rows * width));
        Work work = world.all_to_all_v(stream, tensor_of(out.data(), {out_rows, width}), out_counts,
                                       tensor_of(in.data(), {in_rows, width}), in_counts, "rows");
        // The counts may be dropped after the call.
        in_counts.assign(in_counts.size(), -1);
        out_counts.assign(out_counts.size(), -1);
        work.wait(stream);
        EXPECT_TRUE(same_bits(out, expected));
      }
    };
    for_each_type(check);
    check(uint8_t{});
  });
}

TEST_P(Collectives, BroadcastGivesTheRootsData) {
  run([](Communicator& world, Stream& stream) {
    for (int root = 0; root < world.size(); ++root) {
      for (const int64_t n : kSizes) {
        std::vector<float> v = values<float>(world.rank(), n);
        world.broadcast(stream, all_of(v), root, "values").wait(stream);
        EXPECT_TRUE(same_bits(v, values<float>(root, n)));
      }
    }
  });
}

TEST_P(Collectives, ManyWorksInFlight) {
  run([](Communicator& world, Stream& stream) {
    constexpr int kInFlight = 6;
    std::vector<std::vector<float>> sums;
    std::vector<Work> works;
    for (int i = 0; i < kInFlight; ++i) sums.push_back(values<float>(world.rank() + i, 100));
    for (auto& sum : sums) works.push_back(world.all_reduce(stream, all_of(sum), ReduceOp::sum, "one of many"));
    for (Work& work : works) work.wait(stream);
    for (int i = 0; i < kInFlight; ++i) {
      float expected = value<float>(i, 42);
      for (int r = 1; r < world.size(); ++r) expected += value<float>(r + i, 42);
      EXPECT_EQ(sums[static_cast<size_t>(i)][42], expected);
    }
  });
}

TEST_P(Collectives, MessagesArriveInOrderOfTheirTag) {
  run([](Communicator& world, Stream& stream) {
    if (world.size() == 1) return;
    const int next = (world.rank() + 1) % world.size();
    const int last = (world.rank() + world.size() - 1) % world.size();
    std::vector<std::vector<float>> out;
    std::vector<std::vector<float>> in(6, std::vector<float>(5));
    for (int i = 0; i < 6; ++i) out.push_back(values<float>(world.rank() * 10 + i, 5));
    std::vector<Work> works;
    // Two tags; the receiver takes the second tag first, and every rank waits for its sends before its receives.
    for (size_t i = 0; i < 6; ++i)
      works.push_back(world.send(stream, all_of(out[i]), next, i % 2 == 0 ? 7 : 9, "ring"));
    for (const size_t i : {1, 3, 5}) works.push_back(world.recv(stream, all_of(in[i]), last, 9, "ring"));
    for (const size_t i : {0, 2, 4}) works.push_back(world.recv(stream, all_of(in[i]), last, 7, "ring"));
    for (Work& work : works) work.wait(stream);
    for (int i = 0; i < 6; ++i) EXPECT_EQ(in[static_cast<size_t>(i)], values<float>(last * 10 + i, 5));
  });
}

TEST_P(Collectives, ReceivesMayComeBeforeSends) {
  run([](Communicator& world, Stream& stream) {
    if (world.size() == 1) return;
    const int peer = world.rank() ^ 1;
    if (peer >= world.size()) return;
    std::vector<float> in(3);
    std::vector<float> out = values<float>(world.rank(), 3);
    Work received = world.recv(stream, all_of(in), peer, 0, "swap");
    Work sent = world.send(stream, all_of(out), peer, 0, "swap");
    sent.wait(stream);
    received.wait(stream);
    EXPECT_EQ(in, values<float>(peer, 3));
  });
}

TEST_P(Collectives, BarrierHoldsUntilAllHaveCome) {
  std::atomic<int> arrived = 0;
  run_ranks(6, {.timeout_s = 60, .async = GetParam()}, [&](Communicator& world) {
    Stream stream;
    for (int round = 1; round <= 20; ++round) {
      ++arrived;
      world.barrier(stream, "round");
      EXPECT_EQ(arrived, round * 6);
      world.barrier(stream, "round end");
    }
  });
}

TEST_P(Collectives, ResultsHaveTheSameBitsEveryTime) {
  std::vector<float> first;
  for (int run_index = 0; run_index < 3; ++run_index) {
    std::vector<float> result;
    run_ranks(5, {.timeout_s = 60, .async = GetParam()}, [&](Communicator& world) {
      Stream stream;
      std::vector<float> v = values<float>(world.rank(), 3001);
      world.all_reduce(stream, all_of(v), ReduceOp::sum, "values").wait(stream);
      if (world.rank() == 0) result = v;
    });
    if (run_index == 0) first = result;
    EXPECT_TRUE(same_bits(first, result));
  }
}

TEST_P(Collectives, SixtyFourRanks) {
  run_ranks(64, {.timeout_s = 60, .async = GetParam()}, [](Communicator& world) {
    Stream stream;
    const auto row = world.split("row", [](int rank) { return rank / 8; });
    const auto column = world.split("column", [](int rank) { return rank % 8; });
    std::vector<int64_t> v = {world.rank()};
    row->all_reduce(stream, all_of(v), ReduceOp::sum, "rows").wait(stream);
    column->all_reduce(stream, all_of(v), ReduceOp::sum, "columns").wait(stream);
    EXPECT_EQ(v[0], 63 * 64 / 2);
    world.barrier(stream, "end");
  });
}

TEST(Inproc, AGroupOfOneCopiesOrDoesNothing) {
  run_ranks(1, {}, [](Communicator& world) {
    Stream stream;
    std::vector<float> in = {1, 2, 3};
    std::vector<float> out(3);
    EXPECT_FALSE(world.all_gather(stream, all_of(out), all_of(in), "x").pending());
    EXPECT_EQ(out, in);
    out.assign(3, 0);
    world.reduce_scatter(stream, all_of(out), all_of(in), "x").wait(stream);
    EXPECT_EQ(out, in);
    world.reduce_scatter(stream, all_of(in), all_of(in), "x").wait(stream);
    world.all_reduce(stream, all_of(in), ReduceOp::sum, "x").wait(stream);
    world.broadcast(stream, all_of(in), 0, "x").wait(stream);
    world.barrier(stream, "x");
    EXPECT_EQ(out, in);
    EXPECT_EQ(world.split("ep", [](int) { return 5; })->size(), 1);
  });
}

TEST(Inproc, SplitKeepsOrderAndWorldRanks) {
  run_ranks(6, {}, [](Communicator& world) {
    const auto odd = world.split("parity", [](int rank) { return rank % 2; });
    EXPECT_EQ(odd->size(), 3);
    EXPECT_EQ(odd->rank(), world.rank() / 2);
    EXPECT_EQ(odd->world_rank(), world.rank());
    const auto first_two = odd->split("pair", [](int rank) { return rank < 2 ? 0 : 1; });
    const std::vector<int> expected =
        world.rank() >= 4 ? std::vector<int>{world.rank()} : std::vector<int>{world.rank() % 2, world.rank() % 2 + 2};
    EXPECT_EQ(first_two->members(), expected);
    EXPECT_EQ(first_two->axis(), "pair");
  });
}

}  // namespace
}  // namespace sluice
