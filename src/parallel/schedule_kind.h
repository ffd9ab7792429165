// The pipeline schedules there are.
#pragma once

#include <cstdint>

namespace sluice {

enum class ScheduleKind : uint8_t { one_f_one_b, interleaved, zero_bubble };

}  // namespace sluice
