#include "device/meta/meta_backend.h"

#include <algorithm>

namespace sluice {

double DeviceModel::seconds(OpId op, const Cost& cost) const {
  if (const auto measured = roofline_share.find(op.name); measured != roofline_share.end()) {
    return op_overhead_s + roof.seconds(cost) / measured->second;
  }
  const double share = is_product(op.kind) ? matrix_efficiency : other_efficiency;
  return op_overhead_s + std::max(roof.arithmetic_seconds(cost) / share, cost.bytes() / roof.bandwidth);
}

void MetaBackend::charge(OpId op, const Cost& cost, Stream& stream) {
  const double seconds = model_.seconds(op, cost);
  stream.advance(seconds);
  seconds_[op] += seconds;
}

}  // namespace sluice
