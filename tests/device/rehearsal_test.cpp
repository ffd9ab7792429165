// Operations that libraries carry out are run once for each shape, on memory that is given back.
#include "device/rehearsal.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "device/meta/meta_backend.h"
#include "device/ref/ref_backend.h"

namespace sluice::test {
namespace {

// The reference, which counts what it is asked for.
class Counting final : public RefBackend {
 public:
  std::map<std::string, int> calls;

 protected:
  void charge(OpId op, const Cost& /*cost*/, Stream& /*stream*/) override { ++calls[std::string(op.name)]; }
};

Tensor of(Shape shape, int64_t stride = 0) {
  auto* const somewhere = reinterpret_cast<void*>(uintptr_t{1} << 40);
  return stride == 0 ? Tensor(somewhere, shape, DType::f32) : Tensor(somewhere, shape, DType::f32, stride);
}

Gemm product(int64_t m, bool trans_b = false) {
  return {.c = of({m, 4}), .a = of({m, 3}), .b = trans_b ? of({4, 3}) : of({3, 4}), .trans_b = trans_b};
}

AttentionForward attention(int64_t window) {
  // Queries, keys and values beside each other.
  const int64_t stride = 4 * 8;
  return {.o = of({6, 2, 8}),
          .lse = of({6, 2}),
          .q = of({6, 2, 8}, stride),
          .k = of({6, 1, 8}, stride),
          .v = of({6, 1, 8}, stride),
          .spec = {.seq_len = 3, .window = window}};
}

AttentionBackward attention_backward() {
  const AttentionForward f = attention(0);
  return {.dq = f.q,
          .dk = f.k,
          .dv = f.v,
          .d_o = f.o,
          .o = f.o,
          .lse = f.lse,
          .q = f.q,
          .k = f.k,
          .v = f.v,
          .spec = f.spec};
}

TEST(Rehearsal, RunsEachShapeOnceAndKeepsNothing) {
  Rehearsal rehearsal;
  for (int i = 0; i < 3; ++i) {
    for (const int64_t m : {5, 7}) rehearsal.add(product(m));
    rehearsal.add(product(5, /*trans_b=*/true));
    for (const int64_t window : {0, 2}) rehearsal.add(attention(window));
    rehearsal.add(attention_backward());
  }
  EXPECT_EQ(rehearsal.size(), 6U);
  Counting backend;
  HostMemory memory;
  rehearsal.run(backend, memory);
  EXPECT_EQ(backend.calls["gemm"], 3);
  EXPECT_EQ(backend.calls["attention_forward"], 2);
  EXPECT_EQ(backend.calls["attention_backward"], 1);
  EXPECT_EQ(memory.ledger().current(), 0U);
  EXPECT_GT(memory.ledger().peak(), 0U);
}

TEST(Rehearsal, OfNothingTakesNothing) {
  Counting backend;
  HostMemory memory;
  Rehearsal().run(backend, memory);
  EXPECT_TRUE(backend.calls.empty());
  EXPECT_EQ(memory.ledger().allocations(), 0);
}

TEST(Rehearsal, MetaTellsItWhatIsRun) {
  MetaBackend meta({});
  Stream stream;
  Rehearsal rehearsal;
  meta.run(product(5), {}, stream, {});
  meta.tell(&rehearsal);
  meta.run(product(5), {}, stream, {});
  meta.run(Fill{.x = of({4})}, {}, stream, {});
  meta.run(attention(0), {}, stream, {});
  EXPECT_EQ(rehearsal.size(), 2U);
}

}  // namespace
}  // namespace sluice::test
