#include "device/meta/meta_backend.h"

#include <algorithm>

namespace sluice {

double DeviceModel::seconds(std::string_view op, const Cost& cost) const {
  const double moving = cost.bytes() / bandwidth;
  if (const auto measured = roofline_share.find(op); measured != roofline_share.end()) {
    return op_overhead_s + std::max(cost.flops / peak_flops, moving) / measured->second;
  }
  const bool product = op.starts_with("gemm") || op.starts_with("grouped_gemm") || op.starts_with("attention") ||
                       op.starts_with("head_loss");
  const double share = product ? matrix_efficiency : other_efficiency;
  return op_overhead_s + std::max(cost.flops / (peak_flops * share), moving);
}

void MetaBackend::charge(std::string_view op, const Cost& cost, Stream& stream) {
  const double seconds = model_.seconds(op, cost);
  stream.advance(seconds);
  const auto entry = seconds_.find(op);
  if (entry == seconds_.end()) {
    seconds_.emplace(op, seconds);
  } else {
    entry->second += seconds;
  }
}

}  // namespace sluice
