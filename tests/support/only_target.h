// Holds the kernels of the CPU backend to one instruction set while it lives, as on a processor that has no better.
#pragma once

#include <hwy/targets.h>

#include <cstdint>

namespace sluice::test {

class OnlyTarget {
 public:
  explicit OnlyTarget(int64_t target) { use(target); }
  ~OnlyTarget() { use(0); }
  OnlyTarget(const OnlyTarget&) = delete;
  OnlyTarget& operator=(const OnlyTarget&) = delete;
  OnlyTarget(OnlyTarget&&) = delete;
  OnlyTarget& operator=(OnlyTarget&&) = delete;

  static bool has(int64_t target) { return target == HWY_SCALAR || (hwy::SupportedTargets() & target) != 0; }

 private:
  static void use(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

}  // namespace sluice::test
