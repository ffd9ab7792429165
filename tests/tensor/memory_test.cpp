#include "tensor/memory.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"

namespace sluice {
namespace {

TEST(Ledger, KeepsWhatEachKindHeldAtThePeak) {
  MemoryLedger ledger;
  ledger.add(MemoryKind::weights, 100);
  ledger.add(MemoryKind::activations, 50);
  ledger.remove(MemoryKind::activations, 50);
  ledger.add(MemoryKind::gradients, 30);
  EXPECT_EQ(ledger.current(), 130U);
  EXPECT_EQ(ledger.peak(), 150U);
  EXPECT_EQ(ledger.at_peak(MemoryKind::activations), 50U);
  EXPECT_EQ(ledger.at_peak(MemoryKind::gradients), 0U);
  EXPECT_EQ(ledger.current(MemoryKind::gradients), 30U);
  EXPECT_EQ(ledger.allocations(), 3);
  ledger.add(MemoryKind::optimizer, 21);
  EXPECT_EQ(ledger.peak(), 151U);
  EXPECT_EQ(ledger.at_peak(MemoryKind::activations), 0U);
  EXPECT_EQ(ledger.at_peak(MemoryKind::gradients), 30U);
}

TEST(Ledger, RefusesToReleaseMoreThanIsHeld) {
  MemoryLedger ledger;
  ledger.add(MemoryKind::weights, 10);
  EXPECT_THROW(ledger.remove(MemoryKind::weights, 11), Error);
  EXPECT_THROW(ledger.remove(MemoryKind::scratch, 1), Error);
}

TEST(HostMemory, GivesUsableBytesAndCountsThem) {
  HostMemory memory;
  EXPECT_TRUE(memory.real());
  for (const size_t bytes : {size_t{1}, size_t{5000}, size_t{20} << 20}) {
    void* data = memory.allocate(MemoryKind::scratch, bytes);
    ASSERT_NE(data, nullptr);
    std::memset(data, 1, bytes);
    EXPECT_EQ(memory.ledger().current(), bytes);
    memory.release(MemoryKind::scratch, data, bytes);
  }
  EXPECT_EQ(memory.ledger().current(), 0U);
  EXPECT_EQ(memory.ledger().peak(), size_t{20} << 20);
  EXPECT_EQ(memory.allocate(MemoryKind::scratch, 0), nullptr);
  EXPECT_EQ(memory.ledger().allocations(), 3);
}

TEST(HostMemory, ImpossibleSizesFailWithTheNumbers) {
  HostMemory memory;
  void* held = memory.allocate(MemoryKind::weights, 4096);
  try {
    memory.allocate(MemoryKind::activations, size_t{1} << 62);
    FAIL() << "allocated";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("4611686018427387904 bytes for activations on top of 4096 held"),
              std::string::npos)
        << error.what();
    EXPECT_FALSE(error.hint().empty());
  }
  EXPECT_EQ(memory.ledger().current(), 4096U);
  memory.release(MemoryKind::weights, held, 4096);
}

TEST(MetaMemory, CountsWithoutTaking) {
  MetaMemory memory;
  EXPECT_FALSE(memory.real());
  const size_t terabyte = size_t{1} << 40;
  void* first = memory.allocate(MemoryKind::weights, terabyte);
  void* second = memory.allocate(MemoryKind::weights, terabyte);
  EXPECT_NE(first, nullptr);
  EXPECT_GE(static_cast<char*>(second), static_cast<char*>(first) + terabyte);
  EXPECT_EQ(memory.ledger().peak(), 2 * terabyte);
  memory.release(MemoryKind::weights, first, terabyte);
  EXPECT_EQ(memory.ledger().current(), terabyte);
}

}  // namespace
}  // namespace sluice
