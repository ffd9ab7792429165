// A copy of what is not read again soon.
#pragma once

#include <cstddef>

namespace sluice {

// std::memcpy, but for the caches: they keep what they have, and memory is not read before it is written over.
void streaming_copy(std::byte* to, const std::byte* from, size_t bytes);

}  // namespace sluice
