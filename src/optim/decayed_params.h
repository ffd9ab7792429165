// Which parameters weight decay is for.
#pragma once

#include <cstdint>

namespace sluice {

// matrices: not norms, biases and sinks (ParamSpec::decay); all: whatever gradients train.
enum class DecayedParams : uint8_t { matrices, all };

}  // namespace sluice
