// Traffic: what a rank communicated, by axis and kind of call, for the plan's report. Groups of one are free and not in
// it.
#pragma once

#include <array>
#include <map>
#include <string>

#include "comm/communicator.h"

namespace sluice {

struct TrafficTotals {
  int64_t calls = 0;
  double bytes = 0;      // sent or received by this rank, whichever is more
  double seconds = 0;    // by the network model
  double exposed_s = 0;  // of these, how long a stream waited
  double idle_s = 0;     // longer waits: for a peer that had yet to come (between stages the pipeline's bubble)

  TrafficTotals& operator+=(const TrafficTotals& other);
  // A stream waited for `waited_s` for a call of `call_s`.
  void add_wait(double waited_s, double call_s);
};

class Traffic {
 public:
  using ByKind = std::array<TrafficTotals, kCollectives>;

  const std::map<std::string, ByKind>& axes() const { return axes_; }
  TrafficTotals total() const;
  TrafficTotals total(const std::string& axis) const;
  TrafficTotals of(const std::string& axis, Collective kind) const;
  void reset();

  // Stays where it is.
  ByKind& axis(const std::string& name) { return axes_[name]; }

 private:
  std::map<std::string, ByKind> axes_;
};

}  // namespace sluice
