// Fault: how a kernel refuses an index. It cannot throw; it leaves the first bad value here, in memory the host maps,
// uses a harmless one instead, and the host throws at its next read (or after the operation, on a synchronous device).
#pragma once

#include <cstdint>

namespace sluice::cuda {

enum class FaultKind : int32_t {
  none,
  expert,       // "expert 9 is not in [0, 8)"
  row,          // rows a gather or sum reads
  token,        // "token 70000 is not in [0, 50257)"
  label,        // neither in [0, V) nor kIgnoredLabel
  index,        // of an inverse
  offset,       // offsets decrease, or lie behind the rows
  expert_rows,  // more rows than the buffer has
};

struct Fault {
  int32_t kind = 0;     // FaultKind
  int32_t claimed = 0;  // taken by the first to report
  int64_t value = 0;
  int64_t bound = 0;
};

}  // namespace sluice::cuda
