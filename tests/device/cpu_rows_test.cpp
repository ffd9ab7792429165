// Operations of the fast path that are bound by memory, in f32 and in bf16: against ref on every instruction set they
// are compiled for, the same bits at any number of threads and on AVX2 and AVX-512, and every bf16 there is.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "device/cpu/adamw_kernels.h"
#include "device/cpu/stream_kernels.h"
#include "device/cpu_cases.h"
#include "support/compare.h"
#include "support/only_target.h"

namespace sluice::test {
namespace {

constexpr std::array<int64_t, 3> kTargets{HWY_AVX3, HWY_AVX2, HWY_SCALAR};

struct Tested {
  CpuCase program;
  DType dtype;
  std::string name() const { return program.name + " in " + std::string(name_of(dtype)); }
};

std::vector<Tested> all_cases() {
  std::vector<Tested> all;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const CpuCase& c : row_cases()) all.push_back({c, dtype});
    for (const CpuCase& c : bias_and_head_cases()) all.push_back({c, dtype});
  }
  for (const CpuCase& c : router_cases()) all.push_back({c, DType::f32});
  return all;
}

void expect_same(const std::vector<Tensor>& got, const std::vector<Tensor>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(same(got[i], expected[i])) << "result " << i;
}

// What is stored in f32 of a bf16 run is as near as in f32: sums and statistics are not of rounded values.
TEST(CpuRows, AgreeWithRefOnEveryInstructionSet) {
  for (const auto& [program, dtype] : all_cases()) {
    TestContext expected_context(dtype);
    const std::vector<Tensor> expected = program.run(expected_context);
    int ran = 0;
    for (const int64_t target : kTargets) {
      if (!OnlyTarget::has(target)) continue;
      const OnlyTarget only(target);
      TestContext context(dtype, cpu_backend(2));
      const std::vector<Tensor> got = program.run(context);
      ASSERT_EQ(got.size(), expected.size());
      for (size_t i = 0; i < got.size(); ++i) {
        SCOPED_TRACE(fmt::format("{} in {} on {}, result {}: {}", program.name, name_of(dtype), hwy::TargetName(target),
                                 i, got[i].str()));
        if (!is_float(got[i].dtype())) {
          EXPECT_TRUE(same(got[i], expected[i]));
          continue;
        }
        // Sums in f64 are of numbers that are the same here and there.
        EXPECT_TRUE(close(got[i], expected[i], tolerance(got[i].dtype(), program.reduction)));
      }
      ++ran;
    }
    EXPECT_GE(ran, 1);
  }
}

TEST(CpuRows, SameBitsAtAnyNumberOfThreads) {
  for (const Tested& each : all_cases()) {
    SCOPED_TRACE(each.name());
    TestContext expected_context(each.dtype, cpu_backend(1));
    const std::vector<Tensor> expected = each.program.run(expected_context);
    for (const int threads : {2, 3}) {
      TestContext context(each.dtype, cpu_backend(threads));
      expect_same(each.program.run(context), expected);
    }
  }
}

TEST(CpuRows, SameBitsOnAvx2AndAvx512) {
  if (!OnlyTarget::has(HWY_AVX3)) GTEST_SKIP() << "this processor has no AVX-512";
  for (const Tested& each : all_cases()) {
    SCOPED_TRACE(each.name());
    TestContext wide(each.dtype, cpu_backend(1)), narrow(each.dtype, cpu_backend(1));
    const auto run_on = [&](int64_t target, TestContext& context) {
      const OnlyTarget only(target);
      return each.program.run(context);
    };
    expect_same(run_on(HWY_AVX2, narrow), run_on(HWY_AVX3, wide));
  }
}

// Every upper half of an f32 with lower halves on both sides of what rounding decides: as the constructor of bf16 has
// it, NaNs, infinities and denormals included.
TEST(CpuBf16, RoundsEveryNumberAsItsConstructorDoes) {
  constexpr std::array<uint32_t, 7> kLower{0, 1, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff};
  std::vector<float> numbers;
  for (uint32_t upper = 0; upper < 0x10000; ++upper) {
    for (const uint32_t lower : kLower) numbers.push_back(std::bit_cast<float>(upper << 16 | lower));
  }
  const auto n = static_cast<int64_t>(numbers.size());
  for (const int64_t target : kTargets) {
    if (!OnlyTarget::has(target)) continue;
    const OnlyTarget only(target);
    std::vector<bf16> rounded(numbers.size());
    std::vector<float> back(numbers.size());
    cpu::stream_kernels<bf16>().from_f32(rounded.data(), numbers.data(), n);
    cpu::stream_kernels<bf16>().to_f32(back.data(), rounded.data(), n);
    for (size_t i = 0; i < numbers.size(); ++i) {
      ASSERT_EQ(rounded[i].bits, bf16(numbers[i]).bits)
          << hwy::TargetName(target) << ": " << std::hex << std::bit_cast<uint32_t>(numbers[i]);
      ASSERT_EQ(std::bit_cast<uint32_t>(back[i]), uint32_t{rounded[i].bits} << 16);
    }
  }
}

// Rows of any length, none of whose neighbours is touched.
TEST(CpuBf16, LeavesWhatLiesBehindARow) {
  constexpr size_t kRoom = 80;
  for (const int64_t target : kTargets) {
    if (!OnlyTarget::has(target)) continue;
    const OnlyTarget only(target);
    for (int64_t n = 0; n <= 40; ++n) {
      std::array<bf16, kRoom> x{}, y{};
      std::array<float, kRoom> wide{};
      for (size_t i = 0; i < kRoom; ++i) {
        x[i] = bf16(static_cast<float>(i + 1));
        y[i] = bf16(0.5F);
        wide[i] = 0.25F;
      }
      cpu::stream_kernels<bf16>().add(y.data(), x.data(), n);
      cpu::stream_kernels<bf16>().add_to_f32(wide.data(), x.data(), n);
      for (size_t i = 0; i < kRoom; ++i) {
        const float added = i < static_cast<size_t>(n) ? static_cast<float>(i + 1) : 0.0F;
        ASSERT_EQ(static_cast<float>(y[i]), 0.5F + added) << hwy::TargetName(target) << ", row of " << n;
        ASSERT_EQ(wide[i], 0.25F + added) << hwy::TargetName(target) << ", row of " << n;
      }
      EXPECT_EQ(cpu::stream_kernels<bf16>().sum(x.data(), n, false), static_cast<double>(n * (n + 1)) / 2);
    }
  }
}

// Sums that overflow, vanish or are no numbers, as ref has them.
TEST(CpuBf16, AddsWhatIsNotOrdinaryAsRefDoes) {
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  const std::vector<double> special{0.0,         -0.0,     1.0,     -1.0,      0x1p-133,   -0x1p-133,
                                    0x1.fcp-127, 0x1p-126, 0x1p-8,  0x1.02p0,  0x1p-9,     0x1.fep127,
                                    -0x1.fep127, 0x1p119,  0x1p118, kInfinite, -kInfinite, std::nan("")};
  std::vector<double> left, right;
  for (const double a : special) {
    for (const double b : special) {
      left.push_back(a);
      right.push_back(b);
    }
  }
  const auto n = static_cast<int64_t>(left.size());
  const auto added = [&](TestContext& tc) {
    const Tensor y = tc.empty({n}), x = tc.empty({n});
    assign(y, left);
    assign(x, right);
    tc->run(Add{.y = y, .x = x});
    return y;
  };
  TestContext expected_context(DType::bf16);
  const Tensor expected = added(expected_context);
  for (const int64_t target : kTargets) {
    if (!OnlyTarget::has(target)) continue;
    const OnlyTarget only(target);
    TestContext context(DType::bf16, cpu_backend(1));
    const Tensor got = added(context);
    for (size_t i = 0; i < left.size(); ++i) {
      const bf16 mine = got.data<bf16>()[i], theirs = expected.data<bf16>()[i];
      const bool both_nan = std::isnan(static_cast<float>(mine)) && std::isnan(static_cast<float>(theirs));
      EXPECT_TRUE(both_nan || mine.bits == theirs.bits)
          << hwy::TargetName(target) << ": " << left[i] << " + " << right[i] << " is " << static_cast<float>(mine);
    }
  }
}

// A row with what is no number is lost; the others are not.
TEST(CpuBf16, ANanStaysInItsRow) {
  constexpr int64_t kDim = 37;
  for (const int64_t target : kTargets) {
    if (!OnlyTarget::has(target)) continue;
    SCOPED_TRACE(hwy::TargetName(target));
    const OnlyTarget only(target);
    TestContext tc(DType::bf16, cpu_backend(1));
    const Tensor x = tc.random({3, 2 * kDim}, 1), gamma = tc.random({2 * kDim}, 2), y = tc.empty({3, 2 * kDim});
    const Tensor rstd = tc.empty({3}, DType::f32), h = tc.empty({3, kDim});
    x.data<bf16>()[2 * kDim + 5] = bf16(std::numeric_limits<float>::quiet_NaN());
    tc->run(RmsNormForward{.y = y, .rstd = rstd, .x = x, .gamma = gamma, .eps = 1e-6});
    tc->run(SwigluForward{.h = h, .gate_up = x});
    for (int64_t r = 0; r < 3; ++r) {
      int64_t lost = 0, lost_of_h = 0;
      for (int64_t i = 0; i < 2 * kDim; ++i) lost += std::isnan(static_cast<float>(y.data<bf16>()[r * 2 * kDim + i]));
      for (int64_t i = 0; i < kDim; ++i) lost_of_h += std::isnan(static_cast<float>(h.data<bf16>()[r * kDim + i]));
      EXPECT_EQ(lost, r == 1 ? 2 * kDim : 0) << "row " << r;
      EXPECT_EQ(lost_of_h, r == 1 ? 1 : 0) << "row " << r;
    }
  }
}

// Philox in vectors, also where the lower word of the counter overflows.
TEST(CpuRandom, RoundingBitsAreThoseOfTheReference) {
  constexpr int64_t kOverflow = int64_t{1} << 32;
  constexpr uint64_t kKey = 0xfedcba9876543210, kNumber = 0x1'0000'0003;
  for (const int64_t target : kTargets) {
    if (!OnlyTarget::has(target)) continue;
    const OnlyTarget only(target);
    for (const int64_t first : {int64_t{0}, int64_t{5}, kOverflow - 3, kOverflow - 16, 3 * kOverflow + 1}) {
      for (const int64_t count : {1, 7, 8, 16, 17, 40}) {
        std::vector<uint16_t> bits(static_cast<size_t>(8 * count + 1), 0xabcd);
        cpu::rounding_bits(bits.data(), kKey, kNumber, first, count);
        EXPECT_EQ(bits.back(), 0xabcd);
        for (int64_t i = 0; i < 8 * count; ++i) {
          const Philox::Block block = rounding_bits(kKey, kNumber, first + i / 8);
          const uint32_t expected = block[static_cast<size_t>(i % 8 / 2)] >> (16 * (i % 2)) & 0xffffU;
          ASSERT_EQ(bits[static_cast<size_t>(i)], expected) << hwy::TargetName(target) << ", " << first << " + " << i;
        }
      }
    }
  }
}

// A weight that is no number, or no longer finite, is not rounded at random: bits would carry into the sign.
TEST(CpuRandom, InfinitiesAndNansStay) {
  for (const int64_t target : kTargets) {
    if (!OnlyTarget::has(target)) continue;
    const OnlyTarget only(target);
    constexpr size_t kSize = 19;
    std::array<bf16, kSize> w{};
    std::array<float, kSize> m{}, v{}, g{};
    std::array<uint16_t, kSize> random{};
    random.fill(0xffff);
    w.fill(bf16(1.0F));
    w[3] = bf16(0x1.fep127F);
    w[17] = bf16(-0x1.fep127F);
    g[5] = std::numeric_limits<float>::quiet_NaN();
    g[18] = std::bit_cast<float>(0x7fffffffU);
    // Weights double.
    const cpu::AdamWStep step{
        .beta1 = 0.5F, .beta2 = 0.5F, .new1 = 0.5F, .new2 = 0.5F, .eps = 1, .decoupled = -1, .clip = 1, .rate = 1};
    const cpu::AdamWRange<bf16, float> range{
        .w = w.data(), .m = m.data(), .v = v.data(), .g = g.data(), .random = random.data()};
    cpu::adamw(step, range, static_cast<int64_t>(kSize));
    for (size_t i = 0; i < kSize; ++i) {
      const auto got = static_cast<float>(w[i]);
      if (i == 5 || i == 18) {
        EXPECT_TRUE(std::isnan(got)) << i;
      } else {
        EXPECT_EQ(got, i == 3    ? std::numeric_limits<float>::infinity()
                       : i == 17 ? -std::numeric_limits<float>::infinity()
                                 : 2.0F)
            << i;
      }
    }
  }
}

}  // namespace
}  // namespace sluice::test
