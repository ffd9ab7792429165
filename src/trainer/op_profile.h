// Where a step's time goes: an observer that adds up each operation's time, arithmetic and traffic.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "device/context.h"
#include "device/roof.h"

namespace sluice {

// All calls of one operation.
struct OpTotals {
  std::string name;
  double seconds = 0;
  std::vector<Cost> calls;

  double flops() const;
  double bytes() const;
  double roof_seconds(const Roof& roof) const;
  // Of its FLOPs alone, each at the peak of its factors.
  double arithmetic_seconds(const Roof& roof) const;
};

// "81.3 %": how near `seconds` come to the best ones, `roof_seconds`. "cache" where they are less: the roof counts each
// tensor once at the memory's bandwidth, and a cache served it. "above peak" where even the arithmetic, `flop_seconds`
// at the peak, should have taken longer: the peak was measured too low.
std::string roofline_text(double seconds, double roof_seconds, double flop_seconds, int decimals);

struct OpProfile {
  double step_seconds = 0;
  std::vector<OpTotals> ops;  // the most time first
  Roof roof;                  // of a rank

  double seconds_in_ops() const;
  double roof_seconds() const;
  double arithmetic_seconds() const;
};

class OpProfiler : public OpObserver {
 public:
  // Each operation is timed alone: the backend is waited for before and after it.
  explicit OpProfiler(Backend& backend) : backend_(backend) {}

  void before(const OpRecord& record) override;
  void after(const OpRecord& record) override;
  OpProfile profile(double step_seconds) const;

 private:
  Backend& backend_;
  double begin_ = 0;
  std::map<std::string, OpTotals, std::less<>> totals_;
};

// How unevenly tokens go to experts: reads each routing decision.
class LoadMeter : public OpObserver {
 public:
  LoadMeter(Backend& backend, int64_t num_experts) : backend_(backend), counts_(static_cast<size_t>(num_experts)) {}

  void after(const OpRecord& record) override;
  // The fullest expert's tokens over the mean, averaged over layers and micro-batches seen; 1 when nothing was.
  double load_factor() const { return decisions_ > 0 ? sum_ / static_cast<double>(decisions_) : 1; }
  int64_t decisions() const { return decisions_; }

 private:
  Backend& backend_;
  std::vector<int64_t> counts_;
  double sum_ = 0;
  int64_t decisions_ = 0;
};

// Observes a context while it lives.
class ObserverScope {
 public:
  ObserverScope(Context& ctx, OpObserver& observer) : ctx_(ctx), observer_(observer) { ctx_.add_observer(&observer_); }
  ~ObserverScope() { ctx_.remove_observer(&observer_); }
  ObserverScope(const ObserverScope&) = delete;
  ObserverScope& operator=(const ObserverScope&) = delete;
  ObserverScope(ObserverScope&&) = delete;
  ObserverScope& operator=(ObserverScope&&) = delete;

 private:
  Context& ctx_;
  OpObserver& observer_;
};

}  // namespace sluice
