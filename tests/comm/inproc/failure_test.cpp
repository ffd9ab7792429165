// Every way a job can go wrong ends it soon, with a message that names ranks and call.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <regex>
#include <thread>

#include "base/clock.h"
#include "comm/inproc/inproc.h"

namespace sluice {
namespace {

class Failure : public testing::TestWithParam<bool> {
 protected:
  // The error of a job in which body(world, stream) runs on every rank; it must come within `limit_s`.
  Error error_of(int ranks, double timeout_s, double limit_s, const std::function<void(Communicator&, Stream&)>& body) {
    const Stopwatch watch;
    std::optional<Error> caught;
    try {
      run_ranks(ranks, {.timeout_s = timeout_s, .async = GetParam()}, [&](Communicator& world) {
        Stream stream;
        body(world, stream);
      });
    } catch (const Error& error) {
      caught = error;
    }
    EXPECT_LT(watch.seconds(), limit_s);
    if (!caught) {
      ADD_FAILURE() << "the job ended without an error";
      return {ErrorKind::internal, ""};
    }
    return *caught;
  }
};

INSTANTIATE_TEST_SUITE_P(Inproc, Failure, testing::Bool(),
                         [](const auto& param) { return param.param ? "async" : "inline"; });

// Long enough that a job which ends by it fails the test's limit.
constexpr double kLong = 100;
constexpr double kSoon = 20;

// Sets a flag when its scope ends, by an exception too: what another rank waits for to be late.
class EndMark {
 public:
  explicit EndMark(std::atomic<bool>& ended) : ended_(ended) {}
  ~EndMark() {
    ended_ = true;
    ended_.notify_all();
  }
  EndMark(const EndMark&) = delete;
  EndMark& operator=(const EndMark&) = delete;

 private:
  std::atomic<bool>& ended_;
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void sum_once(Communicator& group, Stream& stream, std::string_view what) {
  std::vector<float> v(16, 1.0F);
  group.all_reduce(stream, tensor_of(v.data(), {16}), ReduceOp::sum, what).wait(stream);
}

TEST_P(Failure, AnExceptionOnOneRankEndsAll) {
  std::vector<std::string> secondary(4);
  const Error error = error_of(4, kLong, kSoon, [&](Communicator& world, Stream& stream) {
    sum_once(world, stream, "warm up");
    if (world.rank() == 2) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      throw Error(ErrorKind::internal, "the wheel broke");
    }
    try {
      sum_once(world, stream, "block 3 gradients");
    } catch (const Error& e) {
      secondary[static_cast<size_t>(world.rank())] = e.what();
      throw;
    }
  });
  EXPECT_STREQ(error.what(), "rank 2: the wheel broke");
  EXPECT_EQ(error.kind(), ErrorKind::internal);
  EXPECT_EQ(error.hint(), "ranks 0, 1, 3 were waiting in all_reduce of block 3 gradients (axis world)");
  for (const int rank : {0, 1, 3}) {
    EXPECT_EQ(
        secondary[static_cast<size_t>(rank)],
        fmt::format("rank 2 failed: the wheel broke (rank {} was in all_reduce of block 3 gradients (axis world))",
                    rank));
  }
}

TEST_P(Failure, AUserErrorStaysAsItWas) {
  const Error error = error_of(3, kLong, kSoon, [&](Communicator& world, Stream& stream) {
    if (world.rank() == 1) throw user_error("seq_len is 0").at("a.yaml:3").advise("use 512");
    world.barrier(stream, "start");
  });
  EXPECT_EQ(describe(error), "a.yaml:3: seq_len is 0\n       use 512");
  EXPECT_EQ(error.kind(), ErrorKind::user);
}

TEST_P(Failure, OtherExceptionsGetTheirRank) {
  const Error error = error_of(3, kLong, kSoon, [&](Communicator& world, Stream& stream) {
    if (world.rank() == 1) throw std::bad_alloc();
    world.barrier(stream, "start");
  });
  EXPECT_STREQ(error.what(), "rank 1: std::bad_alloc");
}

TEST_P(Failure, ARankThatLeftIsNoticedAtOnce) {
  const Error error = error_of(4, kLong, kSoon, [&](Communicator& world, Stream& stream) {
    if (world.rank() == 1) return;
    sum_once(world, stream, "gradient norm");
  });
  EXPECT_TRUE(contains(error.what(), "in all_reduce of gradient norm (axis world): rank 1 has left")) << error.what();
  EXPECT_EQ(error.kind(), ErrorKind::runtime);
}

TEST_P(Failure, ALateRankIsNamedWithTheOnesThatWait) {
  std::atomic<bool> ended = false;
  const Error error = error_of(4, 0.4, kSoon, [&](Communicator& world, Stream& stream) {
    sum_once(world, stream, "warm up");
    const EndMark mark(ended);
    if (world.rank() == 1) ended.wait(false);
    sum_once(world, stream, "block 31 dispatch");
  });
  const std::string message = error.what();
  EXPECT_TRUE(std::regex_match(
      message,
      std::regex("rank [023] waited 0\\.[4-9] s in all_reduce of block 31 dispatch \\(axis world\\): rank 1 has "
                 "not arrived; ranks [02], [23] are waiting in the same call")))
      << message;
}

TEST_P(Failure, TheRankToBlameIsNamedByOneThatWaitsForIt) {
  std::atomic<bool> ended = false;
  const Error error = error_of(3, 0.4, kSoon, [&](Communicator& world, Stream& stream) {
    sum_once(world, stream, "warm up");
    const EndMark mark(ended);
    if (world.rank() == 2) return ended.wait(false);
    // So that rank 0, which waits for one that waits, has waited longer.
    if (world.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    float value = 0;
    world.recv(stream, tensor_of(&value, {1}), world.rank() + 1, 0, "activations").wait(stream);
  });
  EXPECT_TRUE(
      std::regex_match(error.what(), std::regex("rank 1 waited 0\\.[4-9] s in recv of activations \\(axis world\\): "
                                                "rank 2 has not sent.*")))
      << error.what();
}

TEST_P(Failure, TheStepIsNamedOnAllAxes) {
  const Error error = error_of(2, 0.4, kSoon, [&](Communicator& world, Stream& stream) {
    const auto before = world.split("ep", [](int) { return 0; });
    world.begin_step(12);
    const auto after = before->split("tp", [](int) { return 0; });
    sum_once(world.rank() == 0 ? *before : *after, stream, "layer 1");
  });
  EXPECT_TRUE(contains(error.what(), "layer 1 (axis ep, step 12)")) << error.what();
  EXPECT_TRUE(contains(error.what(), "layer 1 (axis tp, step 12)")) << error.what();
}

TEST_P(Failure, ADeadlockShowsWhereTheMissingRankWaits) {
  const Error error = error_of(2, 0.4, kSoon, [&](Communicator& world, Stream& stream) {
    const auto ep = world.split("ep", [](int) { return 0; });
    sum_once(world.rank() == 0 ? world : *ep, stream, "layer 1");
  });
  const std::string message = error.what();
  const bool first_waits = contains(message,
                                    "in all_reduce of layer 1 (axis world): rank 1 has not arrived; rank 1 is "
                                    "waiting in all_reduce of layer 1 (axis ep)");
  const bool second_waits = contains(message,
                                     "in all_reduce of layer 1 (axis ep): rank 0 has not arrived; rank 0 is "
                                     "waiting in all_reduce of layer 1 (axis world)");
  EXPECT_TRUE(first_waits || second_waits) << message;
}

TEST_P(Failure, MismatchedCollectivesNameBothRanks) {
  struct Case {
    std::function<void(Communicator&, Stream&)> odd;  // what rank 3 (rank 1 of its group) does
    std::string expected;
  };
  const Case cases[] = {
      {[](Communicator& c, Stream& s) { c.barrier(s, "step end"); }, "barrier of step end"},
      {[](Communicator& c, Stream& s) { sum_once(c, s, "block 4"); }, "all_reduce of block 4, f32 x 16, sum"},
      {[](Communicator& c, Stream& s) {
         float v[8] = {};
         c.all_reduce(s, tensor_of(v, {8}), ReduceOp::sum, "block 3").wait(s);
       },
       "all_reduce of block 3, f32 x 8, sum"},
      {[](Communicator& c, Stream& s) {
         double v[16] = {};
         c.all_reduce(s, tensor_of(v, {16}), ReduceOp::sum, "block 3").wait(s);
       },
       "all_reduce of block 3, f64 x 16, sum"},
      {[](Communicator& c, Stream& s) {
         float v[16] = {};
         c.all_reduce(s, tensor_of(v, {16}), ReduceOp::max, "block 3").wait(s);
       },
       "all_reduce of block 3, f32 x 16, max"},
  };
  for (const Case& c : cases) {
    const Error error = error_of(4, kLong, kSoon, [&](Communicator& world, Stream& stream) {
      const auto odd_ranks = world.split("fsdp", [](int rank) { return rank % 2; });
      if (world.rank() == 3) {
        c.odd(*odd_ranks, stream);
      } else {
        sum_once(*odd_ranks, stream, "block 3");
      }
    });
    const std::string message = error.what();
    EXPECT_TRUE(contains(message, "do not agree on axis fsdp")) << message;
    EXPECT_TRUE(contains(message, "rank 1 is in all_reduce of block 3, f32 x 16, sum") ||
                contains(message, "rank 1 in all_reduce of block 3, f32 x 16, sum"))
        << message;
    EXPECT_TRUE(contains(message, "rank 3 is in " + c.expected) || contains(message, "rank 3 in " + c.expected))
        << message;
  }
}

TEST_P(Failure, MismatchedCountsNameBothRanks) {
  for (const int64_t width : {4, 20000}) {  // moved by one rank for all, and by each
    std::atomic<int> unaware = 0;
    const Error error = error_of(3, kLong, kSoon, [&](Communicator& world, Stream& stream) {
      std::vector<int64_t> counts(3, 2);
      std::vector<int64_t> in_counts = counts;
      if (world.rank() == 0) in_counts[2] = 3;
      const int64_t in_rows = world.rank() == 0 ? 7 : 6;
      std::vector<float> in(static_cast<size_t>(in_rows * width));
      std::vector<float> out(static_cast<size_t>(6 * width));
      world
          .all_to_all_v(stream, tensor_of(out.data(), {6, width}), counts, tensor_of(in.data(), {in_rows, width}),
                        in_counts, "dispatch")
          .wait(stream);
      ++unaware;
    });
    EXPECT_STREQ(error.what(),
                 "rank 0 and rank 2 do not agree in all_to_all_v of dispatch (axis world): rank 0 sends 3 rows, rank 2 "
                 "expects 2");
    // A rank goes on only with data that is complete.
    EXPECT_LE(unaware, width == 4 ? 0 : 2);
  }
}

TEST_P(Failure, MismatchedMessagesNameBothRanks) {
  const Error error = error_of(2, kLong, kSoon, [&](Communicator& world, Stream& stream) {
    std::vector<float> v(8);
    if (world.rank() == 0) {
      world.send(stream, tensor_of(v.data(), {8}), 1, 4, "activations").wait(stream);
    } else {
      world.recv(stream, tensor_of(v.data(), {4}), 0, 4, "activations").wait(stream);
    }
  });
  const std::string message = error.what();
  EXPECT_TRUE(contains(message, "rank 0 is in send of activations (axis world) with f32[8], tag 4")) << message;
  EXPECT_TRUE(contains(message, "rank 1 is in recv of activations (axis world) with f32[4], tag 4")) << message;
}

TEST_P(Failure, AMessageThatNeverComes) {
  std::atomic<bool> ended = false;
  const Error late = error_of(2, 0.2, kSoon, [&](Communicator& world, Stream& stream) {
    const EndMark mark(ended);
    float v = 0;
    if (world.rank() == 0) world.recv(stream, tensor_of(&v, {1}), 1, 0, "activations").wait(stream);
    ended.wait(false);
  });
  EXPECT_TRUE(std::regex_match(late.what(), std::regex("rank 0 waited 0\\.[2-9] s in recv of activations \\(axis world"
                                                       "\\): rank 1 has not sent")))
      << late.what();
  const Error gone = error_of(2, kLong, kSoon, [&](Communicator& world, Stream& stream) {
    float v = 0;
    if (world.rank() == 0) world.send(stream, tensor_of(&v, {1}), 1, 0, "activations").wait(stream);
  });
  EXPECT_STREQ(gone.what(), "rank 0 waits in send of activations (axis world): rank 1 has left");
}

TEST_P(Failure, WorksUnwindWithAnException) {
  const Error error = error_of(2, kLong, kSoon, [&](Communicator& world, Stream& stream) {
    std::vector<float> a(1000, 1.0F);
    std::vector<float> b(1000);
    Work sum;
    if (world.rank() == 0) {
      Work sent = world.send(stream, tensor_of(a.data(), {1000}), 1, 0, "never read");
      throw runtime_failure("rank 0 gives up");
    }
    sum = world.all_reduce(stream, tensor_of(b.data(), {1000}), ReduceOp::sum, "never joined");
    sum.wait(stream);
  });
  EXPECT_STREQ(error.what(), "rank 0 gives up");
}

TEST_P(Failure, AQueuedCollectiveUnwindsWithAnException) {
  std::atomic<bool> ended = false;
  const Error error = error_of(2, kLong, kSoon, [&](Communicator& world, Stream& stream) {
    if (world.rank() == 1) {
      ended.wait(false);
      return;
    }
    const EndMark mark(ended);
    std::vector<float> v(1000);
    // With a worker the collective is under way when the exception destroys its Work and its buffer.
    const Work work =
        GetParam() ? world.all_reduce(stream, tensor_of(v.data(), {1000}), ReduceOp::sum, "pending") : Work();
    throw runtime_failure("gives up");
  });
  EXPECT_STREQ(error.what(), "rank 0: gives up");
}

TEST_P(Failure, ADroppedWorkFailsTheJob) {
  const Error error = error_of(2, kLong, kSoon, [&](Communicator& world, Stream& stream) {
    if (world.rank() == 1) {
      sum_once(world, stream, "block 5");
    } else {
      std::vector<float> w(16, 1.0F);
      world.all_reduce(stream, tensor_of(w.data(), {16}), ReduceOp::sum, "block 5");
    }
  });
  EXPECT_STREQ(error.what(),
               "rank 0: the Work of all_reduce of block 5 (axis world) was destroyed before it was waited for");
  const Error sent = error_of(2, kLong, kSoon, [&](Communicator& world, Stream& stream) {
    std::vector<float> v(8);
    if (world.rank() == 0) world.send(stream, tensor_of(v.data(), {8}), 1, 0, "activations");
  });
  EXPECT_STREQ(sent.what(),
               "rank 0: the Work of send of activations (axis world) was destroyed before it was waited for");
}

TEST_P(Failure, SplitsMustAgree) {
  const Error error = error_of(2, kLong, kSoon, [&](Communicator& world, Stream& stream) {
    const auto group = world.split(world.rank() == 0 ? "ep" : "pp", [](int) { return 0; });
    sum_once(*group, stream, "first");
  });
  EXPECT_TRUE(contains(error.what(), "splits axis")) << error.what();
}

TEST_P(Failure, AbortEndsEveryWait) {
  InprocWorld world(3, {.timeout_s = kLong, .async = GetParam()});
  const Stopwatch watch;
  try {
    world.run([&](int rank) {
      const auto communicator = world.communicator(rank);
      Stream stream;
      if (rank == 2) {
        world.abort(2, "interrupted");
        return;
      }
      communicator->barrier(stream, "start");
    });
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "rank 2: interrupted");
  }
  EXPECT_LT(watch.seconds(), kSoon);
}

TEST(Arguments, AreCheckedWithRankAndCall) {
  run_ranks(2, {}, [](Communicator& world) {
    Stream stream;
    const auto ep = world.split("ep", [](int rank) { return rank; });
    std::vector<float> v(16);
    std::vector<double> d(16);
    const auto expect = [&](const std::string& message, const std::function<void()>& call) {
      try {
        call();
        ADD_FAILURE() << "accepted: " << message;
      } catch (const Error& error) {
        EXPECT_EQ(error.what(), fmt::format("rank {}, {}", world.rank(), message));
        EXPECT_EQ(error.kind(), ErrorKind::internal);
      }
    };
    const Tensor t = tensor_of(v.data(), {16});
    const Tensor matrix = tensor_of(v.data(), {4, 4});
    const std::vector<int64_t> two = {2, 2};
    const std::vector<int64_t> three = {2, 2, 2};
    const std::vector<int64_t> negative = {5, -1};
    expect("all_gather of x (axis world): out f32[16] is not 2 times in f32[16]",
           [&] { world.all_gather(stream, t, t, "x"); });
    expect("all_gather of x (axis ep): out f32[16] is not 1 times in f64[16]",
           [&] { ep->all_gather(stream, t, tensor_of(d.data(), {16}), "x"); });
    expect("reduce_scatter of x (axis world): in f32[16] is not 2 times out f32[4]",
           [&] { world.reduce_scatter(stream, t.rows(0, 4), t, "x"); });
    expect("all_reduce of x (axis world): data f32[4, 2] has stride 4; only dense tensors are communicated",
           [&] { world.all_reduce(stream, matrix.cols(0, 2), ReduceOp::sum, "x"); });
    expect("all_reduce of x (axis world): u8[4] cannot be reduced",
           [&] { world.all_reduce(stream, Tensor(v.data(), {4}, DType::u8), ReduceOp::sum, "x"); });
    expect("broadcast of x (axis world): data f32[3] has no memory",
           [&] { world.broadcast(stream, Tensor(nullptr, {3}, DType::f32), 0, "x"); });
    expect("broadcast of x (axis world): root 2 in a group of 2", [&] { world.broadcast(stream, t, 2, "x"); });
    expect("all_to_all_v of x (axis world): 3 counts of out for 2 ranks",
           [&] { world.all_to_all_v(stream, matrix, three, matrix, two, "x"); });
    expect("all_to_all_v of x (axis world): in f32[16] has 16 rows, its counts add up to 4",
           [&] { world.all_to_all_v(stream, matrix, two, t, two, "x"); });
    expect("all_to_all_v of x (axis world): in count of rank 1 is -1",
           [&] { world.all_to_all_v(stream, matrix, two, matrix, negative, "x"); });
    expect("all_to_all_v of x (axis world): rows of out f32[4, 2] are not like rows of in f32[4, 4]",
           [&] { world.all_to_all_v(stream, tensor_of(v.data(), {4, 2}), two, matrix, two, "x"); });
    expect(fmt::format("send of x (axis world): peer {0} of rank {0} in a group of 2", world.rank()),
           [&] { world.send(stream, t, world.rank(), 0, "x"); });
  });
}

}  // namespace
}  // namespace sluice
