#include "base/streaming_copy.h"

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace sluice {

void streaming_copy(std::byte* to, const std::byte* from, size_t bytes) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<uint8_t> d;
  const size_t lanes = hn::Lanes(d);
  // Streaming stores are of whole vectors at multiples of their size.
  const size_t head = std::min(bytes, (lanes - reinterpret_cast<uintptr_t>(to) % lanes) % lanes);
  std::memcpy(to, from, head);
  size_t at = head;
  for (; at + lanes <= bytes; at += lanes) {
    const auto v = hn::LoadU(d, reinterpret_cast<const uint8_t*>(from + at));
    hn::Stream(v, d, reinterpret_cast<uint8_t*>(to + at));
  }
  hwy::FlushStream();
  std::memcpy(to + at, from + at, bytes - at);
}

}  // namespace sluice
