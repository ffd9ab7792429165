// What the rest of a program asks of a block's attention, whatever its kind.
#pragma once

#include <cstdint>

namespace sluice {

struct AttentionSizes {
  int64_t hidden = 0;    // D, in and out
  int64_t rope_dim = 0;  // columns of a head that carry positions
  int64_t kv_heads = 0;  // of a cache, each with so many columns of a key and of a value
  int64_t key_dim = 0;
  int64_t value_dim = 0;
  int64_t window = 0;  // 0: all earlier keys are seen
};

}  // namespace sluice
