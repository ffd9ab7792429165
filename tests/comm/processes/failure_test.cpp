// Whatever goes wrong in one process ends the job in all of them soon, with a message that names rank, host and call.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <regex>
#include <thread>

#include "base/clock.h"
#include "comm/processes/run_processes.h"

namespace sluice::test {
namespace {

// Long enough that a job which ends by it fails the test's limit.
constexpr double kLong = 100, kSoon = 20;
constexpr int64_t kLarge = 1 << 18;  // elements that travel as bulk

struct Ended {
  ErrorKind kind = ErrorKind::internal;
  std::string text;
  std::string hint = "";
};

class ProcessFailure : public testing::TestWithParam<bool> {
 protected:
  // What each process's run has ended with; empty where without an error.
  std::vector<Ended> errors_of(ProcessCase test, const std::function<void(Communicator&, Stream&)>& body) {
    test.async = GetParam();
    const Stopwatch watch;
    const auto thrown = run_processes(test, [&](Communicator& world) {
      Stream stream;
      body(world, stream);
    });
    EXPECT_LT(watch.seconds(), kSoon);
    std::vector<Ended> errors;
    for (const std::exception_ptr& each : thrown) {
      errors.emplace_back();
      try {
        if (each) std::rethrow_exception(each);
      } catch (const Error& error) {
        errors.back() = {error.kind(), error.what(), error.hint()};
      } catch (const std::exception& error) {
        errors.back().text = fmt::format("not an Error: {}", error.what());
      }
    }
    return errors;
  }
};

INSTANTIATE_TEST_SUITE_P(Processes, ProcessFailure, testing::Bool(),
                         [](const auto& param) { return param.param ? "async" : "inline"; });

void sum(Communicator& group, Stream& stream, int64_t n, std::string_view what) {
  std::vector<float> values(static_cast<size_t>(n), 1.0F);
  group.all_reduce(stream, tensor_of(values.data(), {n}), ReduceOp::sum, what).wait(stream);
}

bool matches(const std::string& text, const std::string& pattern) {
  return std::regex_match(text, std::regex(pattern));
}

TEST_P(ProcessFailure, AnExceptionOnOneRankEndsAllProcesses) {
  for (const int64_t n : {int64_t{16}, kLarge}) {
    const auto errors = errors_of({.ranks = {2, 1, 1}, .timeout_s = kLong}, [&](Communicator& world, Stream& stream) {
      sum(world, stream, n, "warm up");
      if (world.rank() == 2) throw Error(ErrorKind::internal, "the wheel broke");
      sum(world, stream, n, "block 3 gradients");
    });
    EXPECT_EQ(errors[0].text, "rank 2 on host b: the wheel broke");
    EXPECT_EQ(errors[1].text, "rank 2: the wheel broke");
    EXPECT_EQ(errors[2].text, "rank 2 on host b: the wheel broke");
    for (const Ended& each : errors) EXPECT_EQ(each.kind, ErrorKind::internal);
  }
}

TEST_P(ProcessFailure, AUserErrorIsOneEverywhere) {
  const auto errors = errors_of({.ranks = {1, 1}, .timeout_s = kLong}, [](Communicator& world, Stream& stream) {
    if (world.rank() == 1) throw user_error("seq_len is 0");
    world.barrier(stream, "start");
  });
  EXPECT_EQ(errors[0].text, "rank 1 on host b: seq_len is 0");
  EXPECT_EQ(errors[1].text, "seq_len is 0");
  for (const Ended& each : errors) EXPECT_EQ(each.kind, ErrorKind::user);
}

TEST_P(ProcessFailure, ARankThatLeftIsNoticedAtOnce) {
  const auto errors = errors_of({.ranks = {1, 2}, .timeout_s = kLong}, [](Communicator& world, Stream& stream) {
    if (world.rank() == 2) return;
    sum(world, stream, 16, "gradient norm");
  });
  const std::string left = "in all_reduce of gradient norm \\(axis world\\): rank 2 has left.*";
  for (const Ended& each : errors) EXPECT_TRUE(matches(each.text, "rank [01].* waits " + left)) << each.text;
}

TEST_P(ProcessFailure, ALateRankIsNamedWithItsHostAndWhatItDoes) {
  std::atomic<int> ended = 0;
  const auto errors = errors_of({.ranks = {1, 1, 1}, .timeout_s = 0.4}, [&](Communicator& world, Stream& stream) {
    sum(world, stream, 16, "warm up");
    if (world.rank() == 1) {
      ended.wait(0);
    }
    try {
      sum(world, stream, 16, "block 31 dispatch");
    } catch (...) {
      ended = 1;
      ended.notify_all();
      throw;
    }
  });
  const std::string pattern =
      "rank [02](| on host [ac]) waited 0\\.[4-9] s in all_reduce of block 31 dispatch \\(axis world\\): rank 1 has "
      "not "
      "arrived; rank 1 on host b computes";
  for (const Ended& each : errors) EXPECT_TRUE(matches(each.text, pattern)) << each.text;
}

TEST_P(ProcessFailure, TheRankToBlameIsNamedByOneThatWaitsForIt) {
  std::atomic<int> ended = 0;
  const auto errors = errors_of({.ranks = {1, 1, 1}, .timeout_s = 0.4}, [&](Communicator& world, Stream& stream) {
    sum(world, stream, 16, "warm up");
    if (world.rank() == 2) {
      ended.wait(0);
      // It ends by the others' failure. One of its own could be heard of before theirs.
      sum(world, stream, 16, "what the others do not reach");
    }
    // So that rank 0, which waits for one that waits, has waited longer.
    if (world.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    try {
      float value = 0;
      world.recv(stream, tensor_of(&value, {1}), world.rank() + 1, 0, "activations").wait(stream);
    } catch (...) {
      ended = 1;
      ended.notify_all();
      throw;
    }
  });
  for (const int process : {0, 1}) {
    const std::string& text = errors[static_cast<size_t>(process)].text;
    EXPECT_TRUE(
        matches(text,
                "rank 1(| on host b) waited 0\\.[4-9] s in recv of activations \\(axis world\\): rank 2 has not "
                "sent; rank 2 on host c computes"))
        << text;
  }
}

TEST_P(ProcessFailure, ADeadlockShowsWhereTheOtherProcessWaits) {
  const auto errors = errors_of({.ranks = {1, 1}, .timeout_s = 0.4}, [](Communicator& world, Stream& stream) {
    const auto ep = world.split("ep", [](int) { return 0; });
    sum(world.rank() == 0 ? world : *ep, stream, kLarge, "their sum");
  });
  const std::string pattern =
      "rank ([01])(| on host [ab]) waited .* in all_reduce of their sum \\(axis (world|ep)\\): rank [01] has not "
      "arrived; "
      "rank [01] on host [ab] (is waiting in all_reduce of their sum \\(axis (world|ep)\\)|computes)";
  for (const Ended& each : errors) EXPECT_TRUE(matches(each.text, pattern)) << each.text;
}

TEST_P(ProcessFailure, AProcessThatStoppedDoesNotAnswer) {
  MemoryWires* wires = nullptr;
  std::atomic<int> ended = 0;
  const auto errors = errors_of({.ranks = {1, 2}, .timeout_s = 0.4, .wires = [&](MemoryWires& all) { wires = &all; }},
                                [&](Communicator& world, Stream& stream) {
                                  sum(world, stream, 16, "warm up");
                                  if (world.rank() > 0) {
                                    wires->stop(1);
                                    ended.wait(0);
                                    throw user_error("stopped");
                                  }
                                  try {
                                    sum(world, stream, kLarge, "gradients");
                                  } catch (...) {
                                    ended = 1;
                                    ended.notify_all();
                                    throw;
                                  }
                                });
  EXPECT_TRUE(matches(errors[0].text,
                      "rank 0 waited .* in all_reduce of gradients \\(axis world\\): ranks 1, 2 have not arrived; no "
                      "answer from ranks 1-2 on host b: the process has stopped, or cannot be reached"))
      << errors[0].text;
}

TEST_P(ProcessFailure, AProcessThatWasKilledEndsTheOthersAtOnce) {
  MemoryWires* wires = nullptr;
  std::atomic<int> ended = 0;
  const auto errors =
      errors_of({.ranks = {1, 1, 1}, .timeout_s = kLong, .wires = [&](MemoryWires& all) { wires = &all; }},
                [&](Communicator& world, Stream& stream) {
                  world.begin_step(12);
                  sum(world, stream, 16, "warm up");
                  if (world.rank() == 1) {
                    wires->cut(1);
                    ended.wait(0);
                    throw user_error("killed");
                  }
                  try {
                    sum(world, stream, kLarge, "gradients");
                  } catch (...) {
                    ended = 1;
                    ended.notify_all();
                    throw;
                  }
                });
  for (const size_t process : {0, 2}) {
    EXPECT_EQ(errors[process].text, "rank 1 on host b ended or cannot be reached: the test has cut it");
    const std::string rank = process == 0 ? "rank 0" : "rank 2";
    EXPECT_TRUE(matches(errors[process].hint,
                        rank + " was (waiting )?in all_reduce of (warm up|gradients) \\(axis world, step 12\\)"))
        << errors[process].hint;
  }
}

TEST_P(ProcessFailure, MismatchesNameBothRanks) {
  const auto run = [&](const std::function<void(Communicator&, Stream&)>& body, const std::string& expected) {
    const auto errors = errors_of({.ranks = {1, 1}, .timeout_s = kLong}, body);
    for (const Ended& each : errors) {
      EXPECT_NE(each.text.find(expected), std::string::npos) << each.text;
      EXPECT_EQ(each.kind, ErrorKind::internal);
    }
  };
  for (const int64_t n : {int64_t{16}, kLarge}) {
    run([&](Communicator& world, Stream& stream) { sum(world, stream, n + world.rank(), "norm"); },
        fmt::format(
            "rank 0 and rank 1 do not agree on axis world: rank 0 is in all_reduce of norm (axis world) with f32 x "
            "{}, sum, rank 1 is in all_reduce of norm (axis world) with f32 x {}, sum",
            n, n + 1));
    run([&](Communicator& world, Stream& stream) { sum(world, stream, n, world.rank() == 0 ? "one" : "other"); },
        "rank 0 is in all_reduce of one (axis world)");
  }
  run(
      [](Communicator& world, Stream& stream) {
        std::vector<float> in(8), out(8);
        const std::vector<int64_t> sends = {1, world.rank() == 0 ? 3 : 1}, takes = {1, 1};
        const int64_t rows = sends[0] + sends[1];
        world.all_to_all_v(stream, tensor_of(out.data(), {2, 2}), takes, tensor_of(in.data(), {rows, 2}), sends, "rows")
            .wait(stream);
      },
      "rank 0 is in all_to_all_v of rows (axis world) with 3 rows of f32 x 2, rank 1 is in all_to_all_v of rows (axis "
      "world) with 1 rows of f32 x 2");
}

TEST_P(ProcessFailure, ADroppedWorkFailsTheJob) {
  for (const int64_t n : {int64_t{16}, kLarge}) {
    const auto errors = errors_of({.ranks = {1, 1}, .timeout_s = kLong}, [&](Communicator& world, Stream& stream) {
      std::vector<float> values(static_cast<size_t>(n));
      if (world.rank() == 1) {
        world.recv(stream, tensor_of(values.data(), {n}), 0, 3, "activations");  // NOLINT(bugprone-unused-return-value)
      }
      sum(world, stream, n, "the end");
    });
    for (const Ended& each : errors) {
      EXPECT_NE(each.text.find("the Work of recv of activations (axis world) was destroyed before it was waited for"),
                std::string::npos)
          << each.text;
    }
  }
}

TEST_P(ProcessFailure, TextsAreExchangedAndAnEndIsNoticed) {
  const std::vector<Member> members = {{.process = 0, .host = "a", .first_rank = 0, .ranks = 1},
                                       {.process = 1, .host = "b", .first_rank = 1, .ranks = 1}};
  MemoryWires wires(2);
  std::string caught;
  const std::jthread other([&] {
    Courier courier(wires.wire(1), members, kLong);
    EXPECT_EQ(courier.exchange("from b"), (std::vector<std::string>{"from a", "from b"}));
  });
  Courier courier(wires.wire(0), members, kLong);
  EXPECT_EQ(courier.exchange("from a"), (std::vector<std::string>{"from a", "from b"}));
  try {
    courier.exchange("again");
  } catch (const Error& error) {
    caught = error.what();
  }
  EXPECT_EQ(caught, "rank 1 on host b has ended");
}

}  // namespace
}  // namespace sluice::test
