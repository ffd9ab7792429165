// Every way a job on NCCL can go wrong ends it soon, with a message that names ranks and call. On the emulation, whose
// collectives hang like NCCL's.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <regex>
#include <thread>

#include "base/clock.h"
#include "emulation/nccl/emulated_nccl.h"

namespace sluice::test {
namespace {

using emulation::NcclRank;
using emulation::NcclRun;

// Long enough that a job which ends by it fails the test's limit.
constexpr double kLong = 100;
constexpr double kSoon = 20;

Error error_of(const NcclRun& run, const std::function<void(NcclRank&)>& body) {
  const Stopwatch watch;
  std::optional<Error> caught;
  try {
    emulation::run_nccl(run, body);
  } catch (const Error& error) {
    caught = error;
  }
  EXPECT_LT(watch.seconds(), kSoon);
  if (!caught) {
    ADD_FAILURE() << "the job ended without an error";
    return {ErrorKind::internal, ""};
  }
  return *caught;
}

bool matches(const std::string& text, const std::string& pattern) {
  return std::regex_match(text, std::regex(pattern));
}

// The values of a sum over the group, read by the host.
std::vector<float> sum_once(NcclRank& rank, Communicator& group, std::string_view what, std::vector<float>& v) {
  const Tensor t = tensor_of(v.data(), {std::ssize(v)});
  group.all_reduce(rank.stream, t, ReduceOp::sum, what).wait(rank.stream);
  std::vector<float> sums(v.size());
  rank.backend.read(t, sums.data());
  return sums;
}

TEST(NcclFailure, AnExceptionOnOneRankEndsReadsOfTheOthers) {
  std::vector<std::string> secondary(4);
  const Error error = error_of({.ranks = 4, .timeout_s = kLong}, [&](NcclRank& rank) {
    std::vector<float> v(16, 1.0F);
    EXPECT_EQ(sum_once(rank, rank.world, "warm up", v), std::vector<float>(16, 4.0F));
    if (rank.world.rank() == 2) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      throw Error(ErrorKind::internal, "the wheel broke");
    }
    try {
      // Neither the call nor the wait blocks: the read does, and must not believe what it finds.
      sum_once(rank, rank.world, "block 3 gradients", v);
    } catch (const Error& e) {
      secondary[static_cast<size_t>(rank.world.rank())] = e.what();
      EXPECT_THROW(rank.world.check_alive(), Error);
      EXPECT_THROW(sum_once(rank, rank.world, "later", v), Error);
      throw;
    }
  });
  EXPECT_STREQ(error.what(), "rank 2: the wheel broke");
  EXPECT_EQ(error.kind(), ErrorKind::internal);
  for (const int rank : {0, 1, 3}) {
    EXPECT_EQ(
        secondary[static_cast<size_t>(rank)],
        fmt::format("rank 2 failed: the wheel broke (rank {} was in all_reduce of block 3 gradients (axis world))",
                    rank));
  }
}

TEST(NcclFailure, AUserErrorStaysAsItWas) {
  const Error error = error_of({.ranks = 3, .timeout_s = kLong}, [&](NcclRank& rank) {
    if (rank.world.rank() == 1) throw user_error("seq_len is 0").at("a.yaml:3").advise("use 512");
    rank.world.barrier(rank.stream, "start");
  });
  EXPECT_EQ(describe(error), "a.yaml:3: seq_len is 0\n       use 512");
}

TEST(NcclFailure, ARankThatLeftIsNoticedSoon) {
  const Error error = error_of({.ranks = 3, .timeout_s = kLong}, [&](NcclRank& rank) {
    std::vector<float> v(4);
    sum_once(rank, rank.world, "warm up", v);
    if (rank.world.rank() == 1) return;
    sum_once(rank, rank.world, "gradient norm", v);
  });
  EXPECT_TRUE(
      matches(error.what(), "rank [02] waits in all_reduce of gradient norm \\(axis world\\): rank 1 has left.*"))
      << error.what();
}

TEST(NcclFailure, ALateRankIsNamedWithWhereItWas) {
  std::atomic<bool> ended = false;
  const Error error = error_of({.ranks = 3, .timeout_s = 0.4}, [&](NcclRank& rank) {
    const auto ep = rank.world.split("ep", [](int) { return 0; });
    std::vector<float> v(4);
    sum_once(rank, *ep, "block 30 dispatch", v);
    if (rank.world.rank() == 1) {
      ended.wait(false);
      return;
    }
    try {
      sum_once(rank, *ep, "block 31 dispatch", v);
    } catch (...) {
      ended = true;
      ended.notify_all();
      throw;
    }
  });
  EXPECT_TRUE(matches(error.what(),
                      "rank [02] waited 0\\.[4-9] s in all_reduce of block 31 dispatch \\(axis ep\\): rank 1 has not "
                      "issued it; rank 1 was last in all_reduce of block 30 dispatch \\(axis ep\\)"))
      << error.what();
}

TEST(NcclFailure, AmongStrangersTheTimeoutNamesRankCallAndAxis) {
  const Error error = error_of({.ranks = 2, .timeout_s = 0.4, .strangers = true}, [&](NcclRank& rank) {
    const auto fsdp = rank.world.split("fsdp", [](int) { return 0; });
    std::vector<float> v(4);
    sum_once(rank, *fsdp, "warm up", v);
    if (rank.world.rank() == 1) return;
    sum_once(rank, *fsdp, "block 2 gradients", v);
  });
  EXPECT_TRUE(matches(error.what(), "rank 0 waited 0\\.[4-9] s in all_reduce of block 2 gradients \\(axis fsdp\\)"))
      << error.what();
}

TEST(NcclFailure, AmongStrangersAnErrorOfNcclEndsTheRank) {
  const Error error = error_of({.ranks = 2, .timeout_s = 2, .strangers = true}, [&](NcclRank& rank) {
    std::vector<float> v(rank.world.rank() == 0 ? 4 : 5);
    sum_once(rank, rank.world, "gradients", v);
  });
  // Found by the watchdog or while the call was being issued.
  EXPECT_TRUE(matches(error.what(),
                      "rank [01]: (NCCL in a call of axis world|ncclAllReduce in all_reduce of gradients \\(axis "
                      "world\\)): invalid usage: the ranks' calls do not match"))
      << error.what();
}

TEST(NcclFailure, MismatchedCollectivesNameBothRanks) {
  const Error error = error_of({.ranks = 4, .timeout_s = kLong}, [&](NcclRank& rank) {
    const auto fsdp = rank.world.split("fsdp", [](int r) { return r % 2; });
    std::vector<float> v(rank.world.rank() == 3 ? 8 : 16);
    sum_once(rank, *fsdp, "block 3", v);
  });
  EXPECT_TRUE(
      matches(error.what(),
              "rank [13] and rank [13] do not agree on axis fsdp: rank . is in all_reduce of block 3, f32 x .*, "
              "sum, rank . in all_reduce of block 3, f32 x .*, sum"))
      << error.what();
}

TEST(NcclFailure, MismatchedCountsNameBothRanks) {
  const Error error = error_of({.ranks = 3, .timeout_s = kLong}, [&](NcclRank& rank) {
    const std::vector<int64_t> counts(3, 2);
    std::vector<int64_t> in_counts = counts;
    if (rank.world.rank() == 0) in_counts[2] = 3;
    std::vector<float> in(static_cast<size_t>(4 * (rank.world.rank() == 0 ? 7 : 6)));
    std::vector<float> out(24);
    rank.world
        .all_to_all_v(rank.stream, tensor_of(out.data(), {6, 4}), counts, tensor_of(in.data(), {std::ssize(in) / 4, 4}),
                      in_counts, "dispatch")
        .wait(rank.stream);
    rank.backend.read(tensor_of(out.data(), {6, 4}), in.data());
  });
  EXPECT_STREQ(error.what(),
               "rank 0 and rank 2 do not agree in all_to_all_v of dispatch (axis world): rank 0 sends 3 rows, rank 2 "
               "expects 2");
}

TEST(NcclFailure, MessagesTakenInAnotherOrderNameBothRanks) {
  const Error error = error_of({.ranks = 2, .timeout_s = kLong}, [&](NcclRank& rank) {
    float a = 0;
    float b = 0;
    std::vector<Work> works;
    for (const int tag : {2, 4}) {
      const Tensor t = tensor_of(tag == 2 ? &a : &b, {1});
      if (rank.world.rank() == 0) {
        works.push_back(rank.world.send(rank.stream, t, 1, tag, "activations"));
      } else {
        works.push_back(rank.world.recv(rank.stream, t, 0, 6 - tag, "activations"));
      }
    }
    for (Work& work : works) work.wait(rank.stream);
    rank.backend.read(tensor_of(&a, {1}), &b);
  });
  EXPECT_TRUE(
      matches(error.what(),
              "rank [01] and rank [01] do not agree on axis world: rank . is in (send|recv) of activations, f32 "
              "x 1, tag ., rank . in (send|recv) of activations, f32 x 1, tag .; on NCCL messages arrive in the "
              "order they were sent"))
      << error.what();
}

TEST(NcclFailure, AMessageThatNeverComes) {
  std::atomic<bool> ended = false;
  const Error error = error_of({.ranks = 2, .timeout_s = 0.3}, [&](NcclRank& rank) {
    if (rank.world.rank() == 1) {
      ended.wait(false);
      return;
    }
    float v = 0;
    try {
      rank.world.recv(rank.stream, tensor_of(&v, {1}), 1, 0, "activations").wait(rank.stream);
      float read = 0;
      rank.backend.read(tensor_of(&v, {1}), &read);
    } catch (...) {
      ended = true;
      ended.notify_all();
      throw;
    }
  });
  EXPECT_TRUE(matches(error.what(),
                      "rank 0 waited 0\\.[3-9] s in recv of activations \\(axis world\\): rank 1 has not "
                      "issued it; rank 1 was last in .*"))
      << error.what();
}

TEST(NcclFailure, AnAxisWithoutMessagesSaysSo) {
  const Error error = error_of({.ranks = 2, .timeout_s = kLong}, [&](NcclRank& rank) {
    const auto ep = rank.world.split("ep", [](int) { return 0; });
    float v = 0;
    ep->send(rank.stream, tensor_of(&v, {1}), 1 - ep->rank(), 0, "x").wait(rank.stream);
  });
  EXPECT_TRUE(matches(error.what(), "rank [01], send of x \\(axis ep\\): axis ep is not one of the message_axes"))
      << error.what();
}

TEST(NcclFailure, MessagesGoToNeighbours) {
  const Error error = error_of({.ranks = 4, .timeout_s = kLong}, [&](NcclRank& rank) {
    float v = 0;
    rank.world.send(rank.stream, tensor_of(&v, {1}), (rank.world.rank() + 2) % 4, 0, "x").wait(rank.stream);
  });
  EXPECT_TRUE(matches(error.what(), "rank ., send of x \\(axis world\\): rank . is no neighbour on the ring"))
      << error.what();
}

TEST(NcclFailure, ADroppedWorkFailsTheJob) {
  const Error error = error_of({.ranks = 2, .timeout_s = kLong}, [&](NcclRank& rank) {
    std::vector<float> v(16, 1.0F);
    if (rank.world.rank() == 1) {
      sum_once(rank, rank.world, "block 5", v);
    } else {
      rank.world.all_reduce(rank.stream, tensor_of(v.data(), {16}), ReduceOp::sum, "block 5");
    }
  });
  EXPECT_STREQ(error.what(),
               "rank 0: the Work of all_reduce of block 5 (axis world) was destroyed before it was waited for");
}

TEST(NcclFailure, WorksUnwindWithAnException) {
  const Error error = error_of({.ranks = 2, .timeout_s = kLong}, [&](NcclRank& rank) {
    std::vector<float> v(1000, 1.0F);
    sum_once(rank, rank.world, "warm up", v);
    if (rank.world.rank() == 0) {
      // Its collective is under way when the exception destroys its Work and its buffer.
      const Work work = rank.world.all_reduce(rank.stream, tensor_of(v.data(), {1000}), ReduceOp::sum, "never joined");
      throw runtime_failure("rank 0 gives up");
    }
    rank.world.recv(rank.stream, tensor_of(v.data(), {1000}), 0, 0, "never sent").wait(rank.stream);
    std::vector<float> read(1000);
    rank.backend.read(tensor_of(v.data(), {1000}), read.data());
  });
  EXPECT_STREQ(error.what(), "rank 0 gives up");
}

TEST(NcclFailure, SplitsMustAgree) {
  const Error error = error_of({.ranks = 2, .timeout_s = kLong}, [&](NcclRank& rank) {
    rank.world.split(rank.world.rank() == 0 ? "ep" : "pp", [](int) { return 0; });
  });
  EXPECT_TRUE(std::string(error.what()).find("splits axis") != std::string::npos) << error.what();
}

TEST(NcclFailure, MoreRanksThanGpusIsTheUsersError) {
  const Error error = error_of({.ranks = emulation::kEmulatedGpus + 1}, [](NcclRank&) {});
  EXPECT_EQ(error.kind(), ErrorKind::user);
  EXPECT_STREQ(error.what(), "9 ranks need a GPU each, and there are 8");
}

}  // namespace
}  // namespace sluice::test
