#include "comm/meta/traffic.h"

#include <algorithm>

namespace sluice {

TrafficTotals& TrafficTotals::operator+=(const TrafficTotals& other) {
  calls += other.calls;
  bytes += other.bytes;
  seconds += other.seconds;
  exposed_s += other.exposed_s;
  idle_s += other.idle_s;
  return *this;
}

void TrafficTotals::add_wait(double waited_s, double call_s) {
  const double exposed = std::clamp(waited_s, 0.0, call_s);
  exposed_s += exposed;
  idle_s += std::max(0.0, waited_s - exposed);
}

TrafficTotals Traffic::total() const {
  TrafficTotals sum;
  for (const auto& [name, kinds] : axes_) sum += total(name);
  return sum;
}

TrafficTotals Traffic::total(const std::string& axis) const {
  TrafficTotals sum;
  if (const auto found = axes_.find(axis); found != axes_.end()) {
    for (const TrafficTotals& totals : found->second) sum += totals;
  }
  return sum;
}

TrafficTotals Traffic::of(const std::string& axis, Collective kind) const {
  const auto found = axes_.find(axis);
  return found == axes_.end() ? TrafficTotals() : found->second[static_cast<size_t>(kind)];
}

void Traffic::reset() {
  for (auto& [name, kinds] : axes_) kinds = {};
}

}  // namespace sluice
