#include "device/meta/meta_backend.h"

#include <algorithm>

namespace sluice {

double DeviceModel::seconds(OpId op, const Cost& cost) const {
  const double moving = cost.bytes() / bandwidth;
  if (const auto measured = roofline_share.find(op.name); measured != roofline_share.end()) {
    return op_overhead_s + std::max(cost.flops / peak_flops, moving) / measured->second;
  }
  const double share = is_product(op.kind) ? matrix_efficiency : other_efficiency;
  return op_overhead_s + std::max(cost.flops / (peak_flops * share), moving);
}

void MetaBackend::charge(OpId op, const Cost& cost, Stream& stream) {
  const double seconds = model_.seconds(op, cost);
  stream.advance(seconds);
  seconds_[op] += seconds;
}

}  // namespace sluice
