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
  using Order = HubTensor::Order;
  if (tensor.order == Order::same) return {i, 1, tensor.hub_shape.numel() - i};
  const int last = tensor.hub_shape.rank() - 1;
  const int64_t height = tensor.hub_shape[last];  // of our matrix
  if (tensor.order == Order::interleaved) {
    // Half a vector is every second element.
    const int64_t half = height / 2;
    return {tensor.hub_index(i), 2, half - i % half};
  }
  // A row of ours is a column there.
  const int64_t width = tensor.hub_shape[last - 1];
  return {tensor.hub_index(i), height, width - i % width};
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
