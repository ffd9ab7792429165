#include "trainer/op_profile.h"

#include <algorithm>
#include <numeric>

#include "base/text.h"

namespace sluice {

namespace {

template <class Items, class Value>
double sum_over(const Items& items, Value value) {
  return std::accumulate(items.begin(), items.end(), 0.0,
                         [&](double sum, const auto& item) { return sum + value(item); });
}

}  // namespace

double OpTotals::flops() const {
  return sum_over(calls, [](const Cost& cost) { return cost.flops; });
}

double OpTotals::bytes() const {
  return sum_over(calls, [](const Cost& cost) { return cost.bytes(); });
}

double OpTotals::roof_seconds(const Roof& roof) const {
  return sum_over(calls, [&](const Cost& cost) { return roof.seconds(cost); });
}

double OpTotals::arithmetic_seconds(const Roof& roof) const {
  return sum_over(calls, [&](const Cost& cost) { return roof.arithmetic_seconds(cost); });
}

double OpProfile::seconds_in_ops() const {
  return sum_over(ops, [](const OpTotals& op) { return op.seconds; });
}

double OpProfile::roof_seconds() const {
  return sum_over(ops, [&](const OpTotals& op) { return op.roof_seconds(roof); });
}

double OpProfile::arithmetic_seconds() const {
  return sum_over(ops, [&](const OpTotals& op) { return op.arithmetic_seconds(roof); });
}

std::string roofline_text(double seconds, double roof_seconds, double flop_seconds, int decimals) {
  return format_share(roof_seconds / seconds, decimals, flop_seconds > seconds ? "above peak" : "cache");
}

void OpProfiler::before(const OpRecord& /*record*/) {
  backend_.synchronize();
  begin_ = steady_seconds();
}

void OpProfiler::after(const OpRecord& record) {
  backend_.synchronize();
  const double seconds = steady_seconds() - begin_;
  auto found = totals_.find(record.name);
  if (found == totals_.end()) {
    found = totals_.emplace(std::string(record.name), OpTotals{.name = std::string(record.name)}).first;
  }
  found->second.seconds += seconds;
  found->second.calls.push_back(record.cost);
}

OpProfile OpProfiler::profile(double step_seconds) const {
  OpProfile profile{.step_seconds = step_seconds, .ops = {}, .roof = {}};
  for (const auto& [name, op] : totals_) profile.ops.push_back(op);
  std::sort(profile.ops.begin(), profile.ops.end(),
            [](const OpTotals& a, const OpTotals& b) { return a.seconds > b.seconds; });
  return profile;
}

void LoadMeter::after(const OpRecord& record) {
  if (record.kind != OpKind::routing) return;
  for (const OpTensor& t : record.tensors) {
    if (t.name != "experts" || t.access != Access::out || t.tensor.numel() == 0) continue;
    std::vector<int32_t> experts(static_cast<size_t>(t.tensor.numel()));
    backend_.read(t.tensor, experts.data());
    std::fill(counts_.begin(), counts_.end(), 0);
    for (const int32_t expert : experts) ++counts_.at(static_cast<size_t>(expert));
    const double mean = static_cast<double>(t.tensor.numel()) / static_cast<double>(counts_.size());
    sum_ += static_cast<double>(*std::max_element(counts_.begin(), counts_.end())) / mean;
    ++decisions_;
  }
}

}  // namespace sluice
