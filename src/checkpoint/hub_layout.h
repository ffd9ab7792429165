// How the elements of a hub tensor stand in the parameter it is a part of: the one place that knows.
#pragma once

#include <algorithm>

#include "model/family.h"

namespace sluice {

// Elements i, i + 1, ... i + count - 1 of the part are elements first, first + stride, ... of the hub's tensor.
struct HubLine {
  int64_t first = 0;
  int64_t stride = 1;
  int64_t count = 0;
};

// The line that begins with element `i` of the part, as long as it goes on.
inline HubLine hub_line(const HubTensor& tensor, int64_t i) {
  return {i, 1, tensor.hub_shape.numel() - i};
}

// Calls f(element, line) for elements [begin, end) of the part.
template <class F>
void for_each_line(const HubTensor& tensor, int64_t begin, int64_t end, F&& f) {
  while (begin < end) {
    HubLine line = hub_line(tensor, begin);
    line.count = std::min(line.count, end - begin);
    f(begin, line);
    begin += line.count;
  }
}

}  // namespace sluice
