// meta charges what the machine's model says, and does nothing else.
#include <gtest/gtest.h>

#include "device/context.h"
#include "device/meta/meta_backend.h"

namespace sluice {
namespace {

DeviceModel machine() {
  return {.target = {.row_align = 128, .workers = 3},
          .roof = {.flops = 1000, .bf16_flops = 4000, .bandwidth = 100},
          .op_overhead_s = 0.5,
          .matrix_efficiency = 0.5,
          .other_efficiency = 0.1,
          .roofline_share = {{"rope", 0.25}}};
}

TEST(DeviceModel, TheSlowerOfArithmeticAndMemoryBinds) {
  const DeviceModel model = machine();
  EXPECT_DOUBLE_EQ(model.seconds(id_of<Gemm>(), {.flops = 1000}), 0.5 + 2);
  EXPECT_DOUBLE_EQ(model.seconds(id_of<Gemm>(), {.flops = 1000, .bytes_read = 200, .bytes_written = 100}), 0.5 + 3);
  EXPECT_DOUBLE_EQ(model.seconds(id_of<SwigluForward>(), {.flops = 1000}), 0.5 + 10);
  EXPECT_DOUBLE_EQ(model.seconds(id_of<Copy>(), {.bytes_read = 50, .bytes_written = 50}), 0.5 + 1);
}

// Products of bf16 have a peak of their own, all other arithmetic that of f32.
TEST(DeviceModel, ProductsAreHeldAgainstThePeakOfTheirFactors) {
  const DeviceModel model = machine();
  const Cost bf16{.flops = 1000, .factors = DType::bf16};
  EXPECT_DOUBLE_EQ(model.seconds(id_of<Gemm>(), bf16), 0.5 + 0.5);
  EXPECT_DOUBLE_EQ(model.seconds(id_of<Gemm>(), {.flops = 1000, .factors = DType::f64}), 0.5 + 2);
  EXPECT_DOUBLE_EQ(model.seconds(id_of<Rope>(), bf16), 0.5 + 1) << "measured: the share of the same roof";
  DeviceModel without = model;
  without.roof.bf16_flops = 0;
  EXPECT_DOUBLE_EQ(without.seconds(id_of<Gemm>(), bf16), 0.5 + 2);
  EXPECT_EQ(model.roof.peak_type(DType::bf16), DType::bf16);
  EXPECT_EQ(without.roof.peak_type(DType::bf16), DType::f32);
  EXPECT_EQ(model.roof.peak_type(DType::f32), DType::f32);
}

TEST(DeviceModel, AMeasuredOperationTakesItsRooflineOverItsShare) {
  const DeviceModel model = machine();
  EXPECT_DOUBLE_EQ(model.seconds(id_of<Rope>(), {.flops = 1000}), 0.5 + 4);
  EXPECT_DOUBLE_EQ(model.seconds(id_of<Rope>(), {.flops = 1000, .bytes_read = 400}), 0.5 + 16);
}

TEST(MetaBackend, AdvancesTheStreamAndAddsUpByOperation) {
  MetaBackend backend(machine());
  MetaMemory memory;
  Arena arena(memory, MemoryKind::scratch, "test");
  Context ctx(backend, DType::f32);
  EXPECT_FALSE(ctx.real());
  EXPECT_EQ(backend.target().row_align, 128);
  const Tensor x = arena.empty({25}, DType::f32);
  ctx.run(Fill{.x = x, .value = 1});
  ctx.run(Fill{.x = x, .value = 2});
  EXPECT_DOUBLE_EQ(ctx.compute().now(), 2 * (0.5 + 1));
  ASSERT_EQ(backend.seconds_by_op().size(), 1U);
  EXPECT_DOUBLE_EQ(backend.seconds_by_op().at(id_of<Fill>()), 3);
}

TEST(MetaBackend, ChecksLikeAnyBackend) {
  MetaBackend backend(machine());
  MetaMemory memory;
  Arena arena(memory, MemoryKind::scratch, "test");
  Context ctx(backend, DType::f32);
  EXPECT_THROW(ctx.run(Add{.y = arena.empty({4}, DType::f32), .x = arena.empty({5}, DType::f32)}), Error);
}

}  // namespace
}  // namespace sluice
