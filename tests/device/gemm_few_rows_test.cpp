// Products of experts with few rows, whose weights are not packed: the bits of a product with packed
// weights, on every instruction set.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "device/cpu/cpu_backend.h"
#include "support/compare.h"
#include "support/only_target.h"
#include "support/test_context.h"

namespace sluice::test {
namespace {

// From one row to more than are few, and an expert without any.
const std::vector<int32_t> kExpertRows = {1, 3, 0, 16, 17, 2, 29, 32, 33, 14, 64, 65, 12};

struct Sizes {
  int64_t n;
  int64_t k;
};

// Vectors whole and cut, more than one block of depth, columns cut for several workers, an odd depth.
const std::vector<Sizes> kSizes = {{32, 64}, {70, 52}, {17, 2}, {45, 1302}, {600, 130}, {36, 51}};

Tensor expert(const Tensor& w, int64_t e) {
  return w.view({w.dim(0) * w.dim(1), w.dim(2)}).rows(e * w.dim(1), w.dim(1));
}

void expect_bits_of_packed_weights(DType dtype, bool bf16_dot, bool trans_w, Sizes sizes) {
  const auto experts = static_cast<int64_t>(kExpertRows.size());
  std::vector<double> offsets(1, 0);
  for (const int32_t rows : kExpertRows) offsets.push_back(offsets.back() + rows);
  const auto rows = static_cast<int64_t>(offsets.back());
  const auto [n, k] = sizes;
  Pool pool(2);
  const BackendCase backend{"cpu", [&] { return std::make_shared<CpuBackend>(pool, bf16_dot); }};
  TestContext tc(dtype, backend);
  const Tensor x = tc.strided({rows, k}, dtype);
  randomize(x, 1);
  const Tensor w = tc.random(trans_w ? Shape{experts, n, k} : Shape{experts, k, n}, 2);
  const Tensor y = tc.strided({rows, n}, dtype);
  const Tensor segments = tc.empty({experts + 1}, DType::i32);
  assign(segments, offsets);
  tc->run(GroupedGemm{.y = y, .x = x, .w = w, .offsets = segments, .trans_w = trans_w});
  for (int64_t e = 0; e < experts; ++e) {
    if (kExpertRows[e] == 0) continue;
    const auto begin = static_cast<int64_t>(offsets[e]);
    // One row alone is not packed either, and summed otherwise.
    const Tensor some = x.rows(begin, std::max(2, kExpertRows[e]));
    const Tensor expected = tc.empty({some.dim(0), n});
    tc->run(Gemm{.c = expected, .a = some, .b = expert(w, e), .trans_b = trans_w});
    EXPECT_TRUE(same(y.rows(begin, kExpertRows[e]), expected.rows(0, kExpertRows[e])))
        << name_of(dtype) << (bf16_dot ? " by the instruction" : "") << (trans_w ? ", transposed" : "") << ", n " << n
        << ", k " << k << ", expert of " << kExpertRows[e] << " rows";
  }
}

void expect_bits_of_packed_weights(bool bf16_dot) {
  for (const Sizes& sizes : kSizes) {
    for (const bool trans_w : {false, true}) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        expect_bits_of_packed_weights(dtype, bf16_dot, trans_w, sizes);
      }
    }
  }
}

TEST(GemmFewRows, HasTheBitsOfPackedWeights) {
  expect_bits_of_packed_weights(cpu::has_bf16_dot());
}

TEST(GemmFewRows, HasThemOnOlderProcessors) {
  for (const int64_t target : {int64_t{HWY_AVX3}, int64_t{HWY_AVX2}, int64_t{HWY_SCALAR}}) {
    if (!OnlyTarget::has(target)) continue;
    SCOPED_TRACE(hwy::TargetName(target));
    const OnlyTarget only(target);
    expect_bits_of_packed_weights(false);
  }
}

}  // namespace
}  // namespace sluice::test
