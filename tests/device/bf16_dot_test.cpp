#include "device/cpu/bf16_dot.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <fstream>
#include <string>

namespace sluice {
namespace {

// Whether the system names the instruction among what the processor has; it names none of AVX-512 where it has
// switched that off.
bool listed_by_system() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("flags")) return (line + " ").find(" avx512_bf16 ") != std::string::npos;
  }
  return false;
}

TEST(Bf16Dot, IsThereWhereTheSystemNamesIt) {
  EXPECT_EQ(cpu::has_bf16_dot(), listed_by_system());
}

// A test of what older processors run is not to meet the instruction on the way.
TEST(Bf16Dot, IsAbsentWhereKernelsAreHeldToLess) {
  const bool before = cpu::has_bf16_dot();
  for (const int64_t target : {int64_t{HWY_AVX2}, int64_t{HWY_SCALAR}}) {
    hwy::SetSupportedTargetsForTest(target);
    EXPECT_FALSE(cpu::has_bf16_dot()) << hwy::TargetName(target);
  }
  hwy::SetSupportedTargetsForTest(0);
  EXPECT_EQ(cpu::has_bf16_dot(), before);
}

}  // namespace
}  // namespace sluice
