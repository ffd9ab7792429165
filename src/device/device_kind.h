// What a run computes on: the host's fast kernels or its plain loops, a GPU, or nothing at all (meta counts only).
#pragma once

#include <cstdint>

namespace sluice {

enum class DeviceKind : uint8_t { cpu, ref, cuda, meta };

}  // namespace sluice
