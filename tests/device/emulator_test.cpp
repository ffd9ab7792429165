// The emulated GPU itself: who meets at barriers, what lanes give each other, and what it refuses.
#include "emulation/emulator.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "emulation/streams.h"

namespace sluice::emulation {
namespace {

int id() {
  return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

std::string message_of(const std::function<void()>& launch) {
  try {
    launch();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Emulator, EveryThreadOfEveryBlockRunsOnce) {
  std::vector<int> runs(3 * 70);
  run({3, 1, 1}, {70, 1, 1}, 0, [&] { ++runs[static_cast<size_t>(id())]; });
  EXPECT_EQ(runs, std::vector<int>(3 * 70, 1));
}

TEST(Emulator, NobodyPassesABarrierEarly) {
  std::vector<int> arrived(2);
  std::vector<int> seen;
  run({2, 1, 1}, {40, 1, 1}, 0, [&] {
    ++arrived[blockIdx.x];
    sync_block();
    seen.push_back(arrived[blockIdx.x]);
  });
  EXPECT_EQ(seen, std::vector<int>(80, 40));
}

TEST(Emulator, LanesGiveEachOtherTheirValues) {
  std::vector<int> got(70);
  run({1, 1, 1}, {70, 1, 1}, 0, [&] {
    int sum = 0;
    for (int bits = 16; bits > 0; bits /= 2) sum += exchange(~0U, id() + sum, lane() ^ bits);
    got[static_cast<size_t>(id())] = exchange(~0U, id(), 3);
  });
  for (int i = 0; i < 70; ++i) EXPECT_EQ(got[static_cast<size_t>(i)], i / 32 * 32 + 3) << i;
}

TEST(Emulator, SharedMemoryBelongsToTheBlockAndBeginsAsNaN) {
  int bad = 0;
  run({2, 1, 1}, {8, 1, 1}, 8 * sizeof(int), [&] {
    int* shared = static_cast<int*>(shared_memory());
    bad += shared[threadIdx.x] != -1 ? 1 : 0;
    shared[threadIdx.x] = id();
    sync_block();
    bad += shared[7 - threadIdx.x] != static_cast<int>(blockIdx.x * 8 + 7 - threadIdx.x) ? 1 : 0;
  });
  EXPECT_EQ(bad, 0);
}

TEST(Emulator, ABarrierNotAllReachIsAnError) {
  const auto launch = [] {
    run({1, 1, 1}, {64, 1, 1}, 0, [] {
      if (threadIdx.x < 63) sync_block();
    });
  };
  EXPECT_EQ(message_of(launch), "63 threads of a block wait at a barrier for ever");
  // The machine is usable afterwards.
  EXPECT_EQ(message_of([] { run({1, 1, 1}, {64, 1, 1}, 0, [] { sync_block(); }); }), "no error");
}

TEST(Emulator, ALaneOutsideItsMaskIsAnError) {
  EXPECT_EQ(message_of([] { run({1, 1, 1}, {32, 1, 1}, 0, [] { sync_warp(0xffffU); }); }),
            "a lane outside the mask of its shuffle");
}

TEST(Emulator, RefusesWhatTheHardwareRefuses) {
  const auto launch = [](const Index& grid, const Index& block, size_t shared) {
    return message_of([&] { run(grid, block, shared, [] {}); });
  };
  EXPECT_EQ(launch({1, 1, 1}, {1025, 1, 1}, 0), "a launch with a block of 1025 x 1 x 1");
  EXPECT_EQ(launch({1, 65536, 1}, {32, 1, 1}, 0), "a launch with a grid of 1 x 65536 x 1");
  EXPECT_EQ(launch({0, 1, 1}, {32, 1, 1}, 0), "a launch with a grid of 0 x 1 x 1");
  EXPECT_EQ(launch({1, 1, 1}, {32, 1, 1}, 228 * 1024), "a launch with 233472 bytes of shared memory");
}

TEST(EmulatedStreams, RunWhatTheyHoldInOrderWhenItIsWaitedFor) {
  StreamQueue* stream = make_stream();
  std::string seen;
  put(stream, [&] { seen += 'a'; });
  put(stream, [&] { seen += 'b'; });
  EXPECT_EQ(seen, "");
  finish(stream);
  EXPECT_EQ(seen, "ab");
  put(nullptr, [&] { seen += 'c'; });
  EXPECT_EQ(seen, "abc") << "the null stream does not wait";
  put(stream, [&] { seen += 'd'; });
  drop_stream(stream);
  EXPECT_EQ(seen, "abcd");
}

TEST(EmulatedStreams, AnEventOrdersStreamsAndOnlyThem) {
  StreamQueue *one = make_stream(), *other = make_stream();
  EventPoint* event = make_event();
  std::string seen;
  put(one, [&] { seen += 'a'; });
  record(event, one);
  put(one, [&] { seen += 'b'; });
  wait(other, event);
  put(other, [&] { seen += 'c'; });
  EXPECT_FALSE(reached(event));
  finish(other);
  EXPECT_EQ(seen, "ac") << "what came before the event, and no more of the other stream";
  EXPECT_TRUE(reached(event));
  // As recorded when it was waited for.
  wait(other, event);
  record(event, one);
  put(other, [&] { seen += 'd'; });
  finish(other);
  EXPECT_EQ(seen, "acd");
  finish(event);
  EXPECT_EQ(seen, "acdb");
  drop_event(event);
  drop_stream(one);
  drop_stream(other);
}

TEST(EmulatedStreams, WorkThatIsNotOrderedReadsOldData) {
  StreamQueue *writer = make_stream(), *reader = make_stream();
  int value = 1, read = 0;
  put(writer, [&] { value = 2; });
  put(reader, [&] { read = value; });
  finish(reader);
  EXPECT_EQ(read, 1);
  drop_stream(writer);
  drop_stream(reader);
}

}  // namespace
}  // namespace sluice::emulation
