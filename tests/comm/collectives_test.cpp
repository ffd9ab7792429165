// Values of every collective against plain loops, on every transport.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>

#include "base/clock.h"
#include "comm/inproc/inproc.h"
#include "comm/transports.h"

namespace sluice::test {
namespace {

class Collectives : public testing::TestWithParam<Transport> {
 protected:
  void SetUp() override {
    if (!GetParam().missing.empty()) GTEST_SKIP() << GetParam().missing;
  }
  // With every number of ranks up to `most`.
  void run(const std::function<void(TransportRank&)>& body, int most = 8) {
    for (const int ranks : GetParam().sizes) {
      if (ranks <= most) run_on(ranks, body);
    }
  }
  void run_on(int ranks, const std::function<void(TransportRank&)>& body) {
    std::atomic<int> ran = 0;
    GetParam().run(ranks, [&](TransportRank& rank) {
      body(rank);
      ++ran;
    });
    EXPECT_EQ(ran, GetParam().here(ranks));
  }
};

std::string name_of_transport(const testing::TestParamInfo<Transport>& info) {
  return info.param.name;
}
INSTANTIATE_TEST_SUITE_P(Cpu, Collectives,
                         testing::Values(inproc_transport(false), inproc_transport(true), inproc_on_emulated_gpu(),
                                         process_transport(Processes::two, false),
                                         process_transport(Processes::two, true),
                                         process_transport(Processes::each, false),
                                         process_transport(Processes::each, true), emulated_nccl(),
                                         emulated_nccl(Processes::two), emulated_nccl(Processes::each)),
                         name_of_transport);
INSTANTIATE_TEST_SUITE_P(Mpi, Collectives, testing::Values(mpi_transport(false), mpi_transport(true)),
                         name_of_transport);
INSTANTIATE_TEST_SUITE_P(OneGpu, Collectives,
                         testing::Values(inproc_on_gpu(), nccl_on_one_gpu(), nccl_on_one_gpu(Processes::each)),
                         name_of_transport);
INSTANTIATE_TEST_SUITE_P(ManyGpus, Collectives, testing::Values(nccl_on_many_gpus(), nccl_on_many_gpus(Processes::two)),
                         name_of_transport);

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

// Whether `sums` are those of elements [first, ...): to the bit where the transport adds in rank order, else as near as
// another order, and for bf16 rounding after each addition, may come.
template <class T>
bool are_sums(const Transport& transport, const std::vector<T>& sums, int ranks, int64_t first) {
  const double eps = std::is_same_v<T, double> ? 0x1p-52 : std::is_same_v<T, float> ? 0x1p-23 : 0x1p-8;
  for (size_t i = 0; i < sums.size(); ++i) {
    const int64_t at = first + static_cast<int64_t>(i);
    const T expected = naive_sum<T>(ranks, at);
    if (transport.rank_order || std::is_integral_v<T>) {
      const auto bits = [](const T& value) { return std::as_bytes(std::span(&value, 1)); };
      if (!std::ranges::equal(bits(sums[i]), bits(expected))) return false;
      continue;
    }
    double magnitude = 0;
    for (int r = 0; r < ranks; ++r) magnitude += std::abs(static_cast<double>(value<T>(r, at)));
    const double error = std::abs(static_cast<double>(sums[i]) - static_cast<double>(expected));
    if (!(error <= ranks * eps * magnitude)) return false;
  }
  return true;
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

TEST_P(Collectives, SayWhatCarriesThem) {
  run([](TransportRank& rank) {
    EXPECT_EQ(rank.world.transport(), GetParam().carrier);
    const auto group = rank.world.split("ep", [](int member) { return member % 2; });
    EXPECT_EQ(group->transport(), GetParam().carrier);
  });
}

TEST_P(Collectives, AllGatherConcatenatesInRankOrder) {
  run([](TransportRank& rank) {
    Communicator& world = rank.world;
    const auto check = [&]<class T>(T) {
      for (const int64_t n : kSizes) {
        for (const bool in_place : {false, true}) {
          const std::vector<T> mine = values<T>(world.rank(), n);
          std::vector<T> filled(static_cast<size_t>(n * world.size()));
          if (in_place) std::copy(mine.begin(), mine.end(), filled.begin() + n * world.rank());
          const Array<T> in(rank, mine);
          const Array<T> out(rank, filled);
          const Tensor own = out.tensor().rows(n * world.rank(), n);
          world.all_gather(rank.stream, out.tensor(), in_place ? own : in.tensor(), "values").wait(rank.stream);
          std::vector<T> expected;
          for (int r = 0; r < world.size(); ++r) {
            for (const T v : values<T>(r, n)) expected.push_back(v);
          }
          EXPECT_TRUE(same_bits(out.values(), expected));
        }
      }
    };
    for_each_type(check);
    check(uint8_t{});
  });
}

TEST_P(Collectives, ReduceScatterAddsTheRanksParts) {
  run([&](TransportRank& rank) {
    Communicator& world = rank.world;
    for_each_type([&]<class T>(T) {
      for (const int64_t n : kSizes) {
        for (const bool in_place : {false, true}) {
          const Array<T> in(rank, values<T>(world.rank(), n * world.size()));
          const Array<T> out(rank, std::vector<T>(static_cast<size_t>(n)));
          const Tensor own = in.tensor().rows(n * world.rank(), n);
          world.reduce_scatter(rank.stream, in_place ? own : out.tensor(), in.tensor(), "values").wait(rank.stream);
          std::vector<T> sums = out.values();
          if (in_place) {
            const std::vector<T> all = in.values();
            sums.assign(all.begin() + n * world.rank(), all.begin() + n * (world.rank() + 1));
          }
          EXPECT_TRUE(are_sums(GetParam(), sums, world.size(), n * world.rank()));
        }
      }
    });
  });
}

TEST_P(Collectives, AllReduceAddsOrTakesTheMaximum) {
  run([&](TransportRank& rank) {
    Communicator& world = rank.world;
    for_each_type([&]<class T>(T) {
      const bool has_max = GetParam().float_maxima || std::is_integral_v<T>;
      for (const int64_t n : kSizes) {
        const std::vector<T> mine = values<T>(world.rank(), n);
        const Array<T> sum(rank, mine);
        const Array<T> max(rank, mine);
        world.all_reduce(rank.stream, sum.tensor(), ReduceOp::sum, "values").wait(rank.stream);
        EXPECT_TRUE(are_sums(GetParam(), sum.values(), world.size(), 0));
        if (!has_max) continue;
        world.all_reduce(rank.stream, max.tensor(), ReduceOp::max, "values").wait(rank.stream);
        std::vector<T> expected;
        for (int64_t i = 0; i < n; ++i) {
          double m = static_cast<double>(value<T>(0, i));
          for (int r = 1; r < world.size(); ++r) m = std::max(m, static_cast<double>(value<T>(r, i)));
          expected.push_back(T(m));
        }
        EXPECT_TRUE(same_bits(max.values(), expected));
      }
    });
  });
}

TEST_P(Collectives, ANaNSurvivesTheMaximumOrItIsRefused) {
  run([&](TransportRank& rank) {
    Communicator& world = rank.world;
    for (int bad = 0; bad < world.size(); ++bad) {
      const Array<float> v(rank, {world.rank() == bad ? std::numeric_limits<float>::quiet_NaN() : 1.0F, 2.0F});
      if (!GetParam().float_maxima) {
        EXPECT_THROW(world.all_reduce(rank.stream, v.tensor(), ReduceOp::max, "norm"), Error);
        continue;
      }
      world.all_reduce(rank.stream, v.tensor(), ReduceOp::max, "norm").wait(rank.stream);
      EXPECT_TRUE(std::isnan(v.values()[0]));
      EXPECT_EQ(v.values()[1], 2.0F);
    }
  });
}

// Rows from rank s to rank r: unequal, some empty.
int64_t rows_between(int s, int r, int seed) {
  return (s * 5 + r * 3 + seed) % 4;
}

TEST_P(Collectives, AllToAllMovesRowsInRankOrder) {
  run([](TransportRank& rank) {
    Communicator& world = rank.world;
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
        const Array<T> in(rank, values<T>(self, in_rows * width));
        const Array<T> out(rank, std::vector<T>(static_cast<size_t>(out_rows * width)));
        Work work = world.all_to_all_v(rank.stream, out.tensor().view({out_rows, width}), out_counts,
                                       in.tensor().view({in_rows, width}), in_counts, "rows");
        // The counts may be dropped after the call.
        in_counts.assign(in_counts.size(), -1);
        out_counts.assign(out_counts.size(), -1);
        work.wait(rank.stream);
        EXPECT_TRUE(same_bits(out.values(), expected));
      }
    };
    for_each_type(check);
    check(uint8_t{});
  });
}

TEST_P(Collectives, BroadcastGivesTheRootsData) {
  run([](TransportRank& rank) {
    for (int root = 0; root < rank.world.size(); ++root) {
      for (const int64_t n : kSizes) {
        const Array<float> v(rank, values<float>(rank.world.rank(), n));
        rank.world.broadcast(rank.stream, v.tensor(), root, "values").wait(rank.stream);
        EXPECT_TRUE(same_bits(v.values(), values<float>(root, n)));
      }
    }
  });
}

TEST_P(Collectives, ManyWorksInFlight) {
  run([&](TransportRank& rank) {
    constexpr int kInFlight = 6;
    std::vector<std::unique_ptr<Array<int64_t>>> sums;
    std::vector<Work> works;
    for (int i = 0; i < kInFlight; ++i) {
      sums.push_back(std::make_unique<Array<int64_t>>(rank, values<int64_t>(rank.world.rank() + i, 100)));
    }
    for (auto& sum : sums) {
      works.push_back(rank.world.all_reduce(rank.stream, sum->tensor(), ReduceOp::sum, "one of many"));
    }
    for (Work& work : works) work.wait(rank.stream);
    for (int i = 0; i < kInFlight; ++i) {
      int64_t expected = value<int64_t>(i, 42);
      for (int r = 1; r < rank.world.size(); ++r) expected += value<int64_t>(r + i, 42);
      EXPECT_EQ(sums[static_cast<size_t>(i)]->values()[42], expected);
    }
  });
}

TEST_P(Collectives, ResultsFlowFromOneToTheNextInStreamOrder) {
  run([](TransportRank& rank) {
    Communicator& world = rank.world;
    const auto pair = world.split("pair", [](int r) { return r / 2; });
    const Array<int64_t> x(rank, {world.rank() + 1});
    const Array<int64_t> all(rank, std::vector<int64_t>(static_cast<size_t>(pair->size())));
    // No read between: each collective must see what the one before has made.
    for (int i = 0; i < 5; ++i) {
      world.all_reduce(rank.stream, x.tensor(), ReduceOp::sum, "world").wait(rank.stream);
      pair->all_gather(rank.stream, all.tensor(), x.tensor(), "pair").wait(rank.stream);
      pair->broadcast(rank.stream, x.tensor(), 0, "pair").wait(rank.stream);
    }
    int64_t expected = world.size() * (world.size() + 1) / 2;
    for (int i = 1; i < 5; ++i) expected *= world.size();
    EXPECT_EQ(x.values()[0], expected);
    EXPECT_EQ(all.values(), std::vector<int64_t>(static_cast<size_t>(pair->size()), expected));
  });
}

TEST_P(Collectives, MessagesArriveInOrder) {
  run([&](TransportRank& rank) {
    Communicator& world = rank.world;
    if (world.size() == 1) return;
    const int next = (world.rank() + 1) % world.size();
    const int last = (world.rank() + world.size() - 1) % world.size();
    std::vector<std::unique_ptr<Array<float>>> out;
    std::vector<std::unique_ptr<Array<float>>> in;
    for (int i = 0; i < 6; ++i) {
      out.push_back(std::make_unique<Array<float>>(rank, values<float>(world.rank() * 10 + i, 5)));
      in.push_back(std::make_unique<Array<float>>(rank, std::vector<float>(5)));
    }
    std::vector<Work> works;
    const auto tag_of = [](size_t i) { return i % 2 == 0 ? 7 : 9; };
    // Every rank waits for its sends before its receives; where tags tell messages apart it takes the second tag first.
    const std::vector<size_t> order =
        GetParam().tags ? std::vector<size_t>{1, 3, 5, 0, 2, 4} : std::vector<size_t>{0, 1, 2, 3, 4, 5};
    for (size_t i = 0; i < 6; ++i) works.push_back(world.send(rank.stream, out[i]->tensor(), next, tag_of(i), "ring"));
    for (const size_t i : order) works.push_back(world.recv(rank.stream, in[i]->tensor(), last, tag_of(i), "ring"));
    for (Work& work : works) work.wait(rank.stream);
    for (int i = 0; i < 6; ++i) EXPECT_EQ(in[static_cast<size_t>(i)]->values(), values<float>(last * 10 + i, 5));
  });
}

TEST_P(Collectives, ReceivesMayComeBeforeSends) {
  run([](TransportRank& rank) {
    Communicator& world = rank.world;
    if (world.size() == 1) return;
    const int peer = world.rank() ^ 1;
    if (peer >= world.size()) return;
    const Array<float> in(rank, std::vector<float>(3));
    const Array<float> out(rank, values<float>(world.rank(), 3));
    Work received = world.recv(rank.stream, in.tensor(), peer, 0, "swap");
    Work sent = world.send(rank.stream, out.tensor(), peer, 0, "swap");
    sent.wait(rank.stream);
    received.wait(rank.stream);
    EXPECT_EQ(in.values(), values<float>(peer, 3));
  });
}

// All ranks send to the next before they receive from it: streams that carried several pairs, or both directions of
// one, would deadlock.
TEST_P(Collectives, MessagesOfNeighboursDoNotWaitForEachOther) {
  run([](TransportRank& rank) {
    Communicator& world = rank.world;
    const int size = world.size();
    std::vector<int> peers;
    if (size > 1) peers.push_back((world.rank() + 1) % size);
    if (size > 2) peers.push_back((world.rank() + size - 1) % size);
    const Array<float> out(rank, values<float>(world.rank(), 9));
    std::vector<std::unique_ptr<Array<float>>> in;
    std::vector<Work> works;
    for (const int peer : peers) {
      works.push_back(world.send(rank.stream, out.tensor(), peer, 0, "both neighbours"));
      in.push_back(std::make_unique<Array<float>>(rank, std::vector<float>(9)));
      works.push_back(world.recv(rank.stream, in.back()->tensor(), peer, 0, "both neighbours"));
    }
    for (Work& work : works) work.wait(rank.stream);
    for (size_t i = 0; i < peers.size(); ++i) EXPECT_EQ(in[i]->values(), values<float>(peers[i], 9));
    world.barrier(rank.stream, "the neighbours have read");
  });
}

// As activations and gradients of a pipeline of two stages.
TEST_P(Collectives, EvenAndOddTagsHaveOrdersOfTheirOwn) {
  run([](TransportRank& rank) {
    Communicator& world = rank.world;
    if (world.size() == 1 || world.rank() > 1) return;
    const int peer = 1 - world.rank();
    const Array<float> first(rank, values<float>(world.rank(), 5));
    const Array<float> second(rank, values<float>(world.rank() + 10, 5));
    const Array<float> odd(rank, std::vector<float>(5));
    const Array<float> even(rank, std::vector<float>(5));
    std::vector<Work> works;
    works.push_back(world.send(rank.stream, first.tensor(), peer, 4, "activations"));
    works.push_back(world.send(rank.stream, second.tensor(), peer, 5, "gradients"));
    // The stream goes on to the second receive when the first has ended.
    world.recv(rank.stream, odd.tensor(), peer, 5, "gradients").wait(rank.stream);
    world.recv(rank.stream, even.tensor(), peer, 4, "activations").wait(rank.stream);
    for (Work& work : works) work.wait(rank.stream);
    EXPECT_EQ(even.values(), values<float>(peer, 5));
    EXPECT_EQ(odd.values(), values<float>(peer + 10, 5));
  });
}

TEST_P(Collectives, BarrierHoldsUntilAllHaveCome) {
  std::atomic<int> arrived = 0;
  const int ranks = std::min(5, GetParam().most_ranks());
  const int here = GetParam().here(ranks);
  run_on(ranks, [&](TransportRank& rank) {
    for (int round = 1; round <= 20; ++round) {
      ++arrived;
      rank.world.barrier(rank.stream, "round");
      EXPECT_EQ(arrived, round * here);
      rank.world.barrier(rank.stream, "round end");
    }
  });
}

TEST_P(Collectives, ResultsHaveTheSameBitsEveryTime) {
  std::vector<float> first;
  for (int run_index = 0; run_index < 3; ++run_index) {
    std::vector<float> result;
    run_on(std::min(5, GetParam().most_ranks()), [&](TransportRank& rank) {
      const Array<float> v(rank, values<float>(rank.world.rank(), 3001));
      rank.world.all_reduce(rank.stream, v.tensor(), ReduceOp::sum, "values").wait(rank.stream);
      const std::vector<float> sums = v.values();  // of all ranks: then the array may go
      if (rank.world.rank() == 0) result = sums;
    });
    if (run_index == 0) first = result;
    EXPECT_TRUE(same_bits(first, result));
  }
}

TEST_P(Collectives, RowsAndColumnsOfRanks) {
  const int side = GetParam().most_ranks() >= 64 ? 8 : GetParam().most_ranks() >= 4 ? 2 : 1;
  run_on(side * side, [&](TransportRank& rank) {
    Communicator& world = rank.world;
    const auto row = world.split("row", [&](int r) { return r / side; });
    const auto column = world.split("column", [&](int r) { return r % side; });
    EXPECT_EQ(row->size(), side);
    const Array<int64_t> v(rank, {world.rank()});
    row->all_reduce(rank.stream, v.tensor(), ReduceOp::sum, "rows").wait(rank.stream);
    column->all_reduce(rank.stream, v.tensor(), ReduceOp::sum, "columns").wait(rank.stream);
    const int64_t ranks = side * side;
    EXPECT_EQ(v.values()[0], ranks * (ranks - 1) / 2);
    world.barrier(rank.stream, "end");
  });
}

template <class T>
Tensor all_of(std::vector<T>& values) {
  return tensor_of(values.data(), {std::ssize(values)});
}

TEST(Inproc, TheTimeInCallsCountsOnAllAxes) {
  for (const bool async : {false, true}) {
    run_ranks(2, {.async = async}, [&](Communicator& world) {
      Stream stream;
      const auto ep = world.split("ep", [](int) { return 0; });
      EXPECT_EQ(world.seconds_in_calls(), 0);
      std::vector<float> data(16);
      double before = 0;
      for (Communicator* each : {&world, ep.get()}) {
        const Stopwatch watch;
        each->all_reduce(stream, tensor_of(data.data(), {16}), ReduceOp::sum, "a sum").wait(stream);
        each->barrier(stream, "a barrier");
        const double counted = world.seconds_in_calls() - before;
        EXPECT_GT(counted, 0);
        EXPECT_LE(counted, watch.seconds());
        before = world.seconds_in_calls();
      }
      EXPECT_EQ(ep->seconds_in_calls(), before);
    });
  }
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

// Too much for one rank to move for all.
TEST(Inproc, EachRankMovesItsShareOfLargeData) {
  for (const bool async : {false, true}) {
    run_ranks(3, {.async = async}, [](Communicator& world) {
      Stream stream;
      std::vector<float> sum(20'003, static_cast<float>(world.rank() + 1));
      std::vector<float> same(20'003, static_cast<float>(world.rank()));
      Work summed = world.all_reduce(stream, all_of(sum), ReduceOp::sum, "large");
      Work spread = world.broadcast(stream, all_of(same), 2, "large");
      summed.wait(stream);
      spread.wait(stream);
      EXPECT_EQ(sum, std::vector<float>(20'003, 6.0F));
      EXPECT_EQ(same, std::vector<float>(20'003, 2.0F));
    });
  }
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
}  // namespace sluice::test
