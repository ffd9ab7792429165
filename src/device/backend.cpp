#include "device/backend.h"

#include <cstring>

namespace sluice {

void Backend::read(const Tensor& t, void* to) {
  if (t.bytes() > 0) std::memcpy(to, t.raw(), t.bytes());
}

void Backend::write(const Tensor& t, const void* from) {
  if (t.bytes() > 0) std::memcpy(t.raw(), from, t.bytes());
}

}  // namespace sluice
