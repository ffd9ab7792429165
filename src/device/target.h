// What a device decides of sizes, known without the device: a plan for a GPU is made on any machine.
#pragma once

#include <cstdint>

namespace sluice {

enum class Platform : uint8_t { cpu, gpu };

struct Target {
  int row_align = 1;  // expert segments start at multiples of this
  int workers = 1;    // cpu: threads that may run chunks of one operation at the same time
  Platform platform = Platform::cpu;
};

}  // namespace sluice
