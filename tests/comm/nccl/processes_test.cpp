// Ranks of several processes on NCCL: whatever goes wrong in one ends the others soon, out of collectives that hang on
// their GPUs, and names rank, host and call.
#include <gtest/gtest.h>

#include <atomic>
#include <regex>

#include "base/clock.h"
#include "comm/processes/run_processes.h"
#include "emulation/nccl/emulated_nccl.h"

namespace sluice::test {
namespace {

using emulation::NcclRank;

// Long enough that a job which ends by it fails the test's limit.
constexpr double kLong = 100, kSoon = 20;

// What each process has ended with; empty where without an error.
std::vector<std::string> errors_of(const ProcessCase& test, const std::function<void(NcclRank&)>& body) {
  const Stopwatch watch;
  const auto thrown = run_couriers(
      test, [&](Courier& courier) { emulation::run_nccl({.timeout_s = test.timeout_s, .courier = &courier}, body); });
  EXPECT_LT(watch.seconds(), kSoon);
  std::vector<std::string> errors;
  for (const std::exception_ptr& each : thrown) {
    errors.emplace_back();
    try {
      if (each) std::rethrow_exception(each);
    } catch (const std::exception& error) {
      errors.back() = error.what();
    }
  }
  return errors;
}

void sum(NcclRank& rank, Communicator& group, std::string_view what, int64_t n = 16) {
  std::vector<float> v(static_cast<size_t>(n), 1.0F);
  const Tensor t = tensor_of(v.data(), {n});
  group.all_reduce(rank.stream, t, ReduceOp::sum, what).wait(rank.stream);
  std::vector<float> sums(v.size());
  rank.backend.read(t, sums.data());
  EXPECT_EQ(sums, std::vector<float>(v.size(), static_cast<float>(group.size())));
}

void expect_each(const std::vector<std::string>& errors, const std::string& pattern) {
  for (const std::string& each : errors) EXPECT_TRUE(std::regex_match(each, std::regex(pattern))) << each;
}

// Ends when a rank of another process has noticed.
class Noticed {
 public:
  void wait() const { noticed_.wait(0); }
  void run(const std::function<void()>& body) {
    try {
      body();
    } catch (...) {
      noticed_ = 1;
      noticed_.notify_all();
      throw;
    }
  }

 private:
  std::atomic<int> noticed_ = 0;
};

TEST(NcclProcesses, GroupsAcrossThem) {
  for (const std::vector<int>& ranks : {std::vector<int>{2, 2}, {1, 3}, {1, 1, 1, 1}}) {
    expect_couriers({.ranks = ranks, .timeout_s = kLong}, [&](Courier& courier) {
      emulation::run_nccl({.timeout_s = kLong, .courier = &courier}, [](NcclRank& rank) {
        sum(rank, rank.world, "of all");
        const auto fsdp = rank.world.split("fsdp", [](int r) { return r % 2; });
        const auto pp = rank.world.split("pp", [](int r) { return r / 2; });
        sum(rank, *fsdp, "of every other");
        sum(rank, *pp, "of neighbours");
        float mine = static_cast<float>(rank.world.rank()), theirs = -1;
        Work sent = pp->send(rank.stream, tensor_of(&mine, {1}), 1 - pp->rank(), 0, "its number");
        pp->recv(rank.stream, tensor_of(&theirs, {1}), 1 - pp->rank(), 0, "its number").wait(rank.stream);
        sent.wait(rank.stream);
        float read = -1;
        rank.backend.read(tensor_of(&theirs, {1}), &read);
        EXPECT_EQ(read, static_cast<float>(rank.world.rank() ^ 1));
        rank.world.barrier(rank.stream, "the end");
      });
    });
  }
}

TEST(NcclProcesses, AnExceptionInOneEndsTheOthers) {
  const auto errors = errors_of({.ranks = {2, 1, 1}, .timeout_s = kLong}, [](NcclRank& rank) {
    sum(rank, rank.world, "warm up");
    if (rank.world.rank() == 2) throw Error(ErrorKind::internal, "the wheel broke");
    sum(rank, rank.world, "block 3 gradients");
  });
  EXPECT_EQ(errors[0], "rank 2 on host b: the wheel broke");
  EXPECT_EQ(errors[1], "rank 2: the wheel broke");
  EXPECT_EQ(errors[2], "rank 2 on host b: the wheel broke");
}

TEST(NcclProcesses, OneThatWasKilledEndsTheOthersAtOnce) {
  MemoryWires* wires = nullptr;
  Noticed noticed;
  const auto errors = errors_of({.ranks = {1, 2}, .timeout_s = kLong, .wires = [&](MemoryWires& all) { wires = &all; }},
                                [&](NcclRank& rank) {
                                  sum(rank, rank.world, "warm up");
                                  if (rank.world.rank() > 0) {
                                    if (rank.world.rank() == 1) wires->cut(1);
                                    noticed.wait();
                                    throw user_error("killed");
                                  }
                                  noticed.run([&] { sum(rank, rank.world, "gradients"); });
                                });
  EXPECT_EQ(errors[0], "ranks 1-2 on host b ended or cannot be reached: the test has cut it");
}

TEST(NcclProcesses, OneThatStoppedIsFoundByTheTimeout) {
  MemoryWires* wires = nullptr;
  Noticed noticed;
  const auto errors = errors_of({.ranks = {1, 2}, .timeout_s = 1, .wires = [&](MemoryWires& all) { wires = &all; }},
                                [&](NcclRank& rank) {
                                  const auto ep = rank.world.split("ep", [](int) { return 0; });
                                  if (rank.world.rank() > 0) {
                                    if (rank.world.rank() == 1) wires->stop(1);
                                    noticed.wait();
                                    throw user_error("stopped");
                                  }
                                  noticed.run([&] { sum(rank, *ep, "block 2 dispatch"); });
                                });
  EXPECT_TRUE(std::regex_match(errors[0], std::regex("rank 0 waited .* s in all_reduce of block 2 dispatch \\(axis "
                                                     "ep\\): no answer from ranks 1-2 on host b: the process has "
                                                     "stopped, or cannot be reached")))
      << errors[0];
}

TEST(NcclProcesses, ALateRankIsNamedWithItsHostAndNobodyElse) {
  Noticed noticed;
  const auto errors = errors_of({.ranks = {1, 1, 1}, .timeout_s = 1}, [&](NcclRank& rank) {
    sum(rank, rank.world, "warm up");
    if (rank.world.rank() == 1) noticed.wait();
    noticed.run([&] { sum(rank, rank.world, "block 31 dispatch"); });
  });
  expect_each(errors,
              "rank [02](| on host [ac]) waited .* s in all_reduce of block 31 dispatch \\(axis world\\): rank 1 "
              "on host b computes");
}

TEST(NcclProcesses, CallsThatDoNotFitAreNamedWhereEachWaits) {
  const auto errors = errors_of({.ranks = {1, 1}, .timeout_s = 1}, [](NcclRank& rank) {
    const auto ep = rank.world.split("ep", [](int) { return 0; });
    for (Communicator* group : {&rank.world, ep.get()}) sum(rank, *group, "warm up");
    sum(rank, rank.world.rank() == 0 ? rank.world : *ep, "their sum");
  });
  expect_each(errors,
              "rank ([01])(| on host [ab]) waited .* s in all_reduce of their sum \\(axis (world|ep)\\): rank [01] on "
              "host [ab] is waiting in all_reduce of their sum \\(axis (world|ep)\\)");
}

TEST(NcclProcesses, ARankThatLeftIsNamedByTheTimeout) {
  const auto errors = errors_of({.ranks = {2, 1}, .timeout_s = 1}, [](NcclRank& rank) {
    sum(rank, rank.world, "warm up");
    if (rank.world.rank() == 2) return;
    sum(rank, rank.world, "gradient norm");
  });
  // The other one waits for their end no longer than that.
  expect_each({errors[0]}, "rank [01] waited .* s in all_reduce of gradient norm \\(axis world\\): rank 2 has left");
}

TEST(NcclProcesses, RanksOfOneThatDoNotAgreeAreNamedAtOnce) {
  const auto errors = errors_of({.ranks = {2, 1}, .timeout_s = kLong}, [](NcclRank& rank) {
    const auto fsdp = rank.world.split("fsdp", [](int r) { return r / 2; });
    sum(rank, *fsdp, "norm", rank.world.rank() == 1 ? 8 : 16);
  });
  expect_each(errors,
              ".*rank [01] and rank [01] do not agree on axis fsdp: rank . is in all_reduce of norm, f32 x .*, sum, "
              "rank . in all_reduce of norm, f32 x .*, sum");
}

// Each takes hundreds of MiB of a GPU.
TEST(NcclProcesses, GroupsOfTheSameRanksShareACommunicatorOfNccl) {
  std::atomic<int64_t> made = -1;
  expect_couriers({.ranks = {2, 1}, .timeout_s = kLong}, [&](Courier& courier) {
    emulation::run_nccl({.timeout_s = kLong, .courier = &courier}, [&](NcclRank& rank) {
      sum(rank, rank.world, "of all");
      rank.world.barrier(rank.stream, "all have begun");
      const int64_t before = emulation::nccl_identities();
      rank.world.barrier(rank.stream, "it is read");
      const auto dp = rank.world.split("dp", [](int) { return 0; });
      const auto fsdp = dp->split("fsdp", [](int) { return 0; });
      for (Communicator* group : {&rank.world, dp.get(), fsdp.get()}) sum(rank, *group, "of the same");
      rank.world.barrier(rank.stream, "all have these");
      EXPECT_EQ(emulation::nccl_identities(), before);
      rank.world.barrier(rank.stream, "it is read again");
      // What a block waits for does not queue behind what comes in time anyway.
      const auto ep = rank.world.split("ep", [](int) { return 0; });
      const auto tp = rank.world.split("tp", [](int) { return 0; });
      for (Communicator* group : {ep.get(), tp.get()}) sum(rank, *group, "of an urgent one");
      rank.world.barrier(rank.stream, "all have those");
      made = emulation::nccl_identities() - before;
      rank.world.barrier(rank.stream, "it is read at last");
    });
  });
  EXPECT_EQ(made, 1);
}

}  // namespace
}  // namespace sluice::test
