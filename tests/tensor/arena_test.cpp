#include "tensor/arena.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/error.h"

namespace sluice {
namespace {

#ifdef SLUICE_DEBUG_MEMORY
constexpr size_t kSentinel = Arena::kAlignment;
#else
constexpr size_t kSentinel = 0;
#endif
constexpr size_t kBlock = Arena::kAlignment + kSentinel;  // what a tensor of up to 256 bytes takes

class ArenaTest : public testing::Test {
 protected:
  HostMemory memory;
  Arena arena{memory, MemoryKind::activations, "test"};
  Tensor floats(int64_t count) { return arena.empty({count}, DType::f32); }
};

TEST_F(ArenaTest, BlocksAreAlignedAndApart) {
  arena.reserve(1 << 16);
  const Tensor a = floats(1), b = floats(65), c = arena.empty({0, 3}, DType::f64), d = floats(3);
  for (const Tensor& t : {a, b, c, d}) EXPECT_EQ(reinterpret_cast<uintptr_t>(t.raw()) % Arena::kAlignment, 0U);
  EXPECT_GE(static_cast<char*>(b.raw()), static_cast<char*>(a.raw()) + 4);
  EXPECT_GE(static_cast<char*>(c.raw()), static_cast<char*>(b.raw()) + 260);
  EXPECT_NE(c.raw(), d.raw());  // an empty tensor has an address of its own
  EXPECT_TRUE(c.defined());
  std::memset(b.raw(), 0, b.bytes());
  EXPECT_EQ(arena.in_use(), kBlock + 2 * Arena::kAlignment + kSentinel + 2 * kBlock);
}

TEST_F(ArenaTest, ReleaseToAMarkReusesMemory) {
  arena.reserve(1 << 16);
  const Tensor kept = floats(10);
  const Arena::Mark mark = arena.mark();
  const Tensor first = floats(20), second = floats(30);
  arena.release(mark);
  EXPECT_EQ(arena.in_use(), kBlock);
  EXPECT_EQ(floats(20).raw(), first.raw());
  EXPECT_EQ(floats(30).raw(), second.raw());
  EXPECT_EQ(arena.high_water(), 3 * kBlock);
  arena.release_all();
  EXPECT_EQ(arena.in_use(), 0U);
  EXPECT_EQ(floats(10).raw(), kept.raw());
  EXPECT_EQ(arena.high_water(), 3 * kBlock);
  EXPECT_EQ(arena.grown(), 0);
  EXPECT_EQ(memory.ledger().allocations(), 1);
}

TEST_F(ArenaTest, ScopesNest) {
  const ArenaScope outer(arena);
  floats(1);
  {
    const ArenaScope inner(arena);
    floats(1);
    EXPECT_EQ(arena.in_use(), 2 * kBlock);
  }
  EXPECT_EQ(arena.in_use(), kBlock);
}

TEST_F(ArenaTest, GrowsWithoutMovingAndComesBack) {
  arena.reserve(4 * kBlock);
  const Tensor a = floats(64);
  a.data<float>()[63] = 5;
  const Arena::Mark mark = arena.mark();
  const Tensor large = floats(10000);  // does not fit
  EXPECT_EQ(arena.grown(), 1);
  std::memset(large.raw(), 0, large.bytes());
  EXPECT_EQ(a.data<float>()[63], 5);
  const size_t reserved = arena.reserved();
  EXPECT_EQ(memory.ledger().current(MemoryKind::activations), reserved);
  EXPECT_GE(reserved, 4 * kBlock + large.bytes());
  arena.release(mark);
  EXPECT_EQ(arena.in_use(), kBlock);
  // The second time nothing is taken.
  EXPECT_EQ(floats(10000).raw(), large.raw());
  EXPECT_EQ(arena.grown(), 1);
  EXPECT_EQ(arena.reserved(), reserved);
  EXPECT_EQ(memory.ledger().allocations(), 2);
}

TEST_F(ArenaTest, HighWaterIsWhatToReserve) {
  floats(100);
  arena.empty({33, 7}, DType::f64);
  {
    const ArenaScope scope(arena);
    floats(1000);
  }
  floats(10);
  Arena planned(memory, MemoryKind::activations, "planned");
  planned.reserve(arena.high_water());
  planned.empty({100}, DType::f32);
  planned.empty({33, 7}, DType::f64);
  planned.empty({1000}, DType::f32);
  EXPECT_EQ(planned.grown(), 0);
  EXPECT_EQ(planned.in_use(), planned.reserved());
}

TEST_F(ArenaTest, MisuseIsRefused) {
  floats(10);
  const Arena::Mark mark = arena.mark();
  EXPECT_THROW(arena.reserve(10), Error);
  arena.release_all();
  EXPECT_THROW(arena.release(mark), Error);
}

TEST(ArenaMemory, IsGivenBackAtTheEnd) {
  HostMemory memory;
  {
    Arena arena(memory, MemoryKind::scratch, "short");
    arena.reserve(100);
    arena.empty({1000}, DType::f32);
    EXPECT_EQ(memory.ledger().current(), arena.reserved());
  }
  EXPECT_EQ(memory.ledger().current(), 0U);
}

// On meta an arena that nobody sized never grows, and finds the same high water as on real memory.
TEST(ArenaMemory, MetaCountsTheSame) {
  HostMemory host;
  MetaMemory meta;
  Arena real(host, MemoryKind::activations, "real"), planned(meta, MemoryKind::activations, "planned");
  for (Arena* arena : {&real, &planned}) {
    arena->empty({1 << 20}, DType::f32);
    const ArenaScope scope(*arena);
    for (int i = 0; i < 5; ++i) arena->empty({123, 45}, DType::bf16);
  }
  EXPECT_EQ(planned.grown(), 0);
  EXPECT_GE(planned.high_water(), size_t{4} << 20);
  EXPECT_EQ(planned.high_water(), real.high_water());
}

TEST(ArenaMemory, MetaHoldsMoreThanAnyMachine) {
  MetaMemory meta;
  Arena arena(meta, MemoryKind::weights, "huge");
  for (int i = 0; i < 8; ++i) arena.empty({int64_t{1} << 30, 128}, DType::f32);
  EXPECT_GE(arena.high_water(), size_t{1} << 42);
  EXPECT_EQ(arena.grown(), 0);
}

#ifdef SLUICE_DEBUG_MEMORY
TEST_F(ArenaTest, WritingBehindATensorIsFound) {
  const Tensor t = floats(3);
  t.data<float>()[3] = 1;
  EXPECT_THROW(arena.release_all(), Error);
  t.data<float>()[3] = std::bit_cast<float>(0xa5a5a5a5U);
  EXPECT_NO_THROW(arena.release_all());
}

TEST_F(ArenaTest, ReleasedMemoryIsPoisoned) {
  const Tensor t = floats(3);
  t.data<float>()[1] = 1;
  arena.release_all();
  EXPECT_TRUE(std::isnan(floats(3).data<float>()[1]));
}
#endif

}  // namespace
}  // namespace sluice
