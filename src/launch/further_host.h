// The hosts of a run as the launcher of another host than 0 sees them.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "comm/sockets/letters.h"
#include "launch/host_letters.h"
#include "launch/hosts.h"

namespace sluice::launch {

class FurtherHost final : public Hosts {
 public:
  FurtherHost(const LocalPlan& plan, const LaunchTimes& times, Say say)
      : plan_(plan), times_(times), say_(std::move(say)) {}
  ~FurtherHost() override;
  FurtherHost(const FurtherHost&) = delete;
  FurtherHost& operator=(const FurtherHost&) = delete;
  FurtherHost(FurtherHost&&) = delete;
  FurtherHost& operator=(FurtherHost&&) = delete;

  void watch(std::vector<pollfd>& all) const override;
  void read() override;
  std::optional<Start> start() override;
  void tell(const Failure& failure) override;
  const Failure* elsewhere() const override { return failure_ ? &*failure_ : nullptr; }
  void tell_over(const Outcome& outcome) override;
  std::optional<Decision> decision() override;

 private:
  void come();
  void take(const HostNews& news);
  void lose();
  void send(const Letter& letter) const;
  Error not_found() const;
  std::string first() const;  // "the launcher of host 0 at n0:29500"

  const LocalPlan& plan_;
  const LaunchTimes times_;
  const Say say_;
  std::optional<Correspondent> who_;  // the launcher of host 0
  std::string why_;                   // it was not reached until now
  std::optional<Deadline> deadline_;  // of its being found, and of the start
  ProgressTimer waiting_;
  Deadline next_try_{};

  bool running_ = false;  // from start() to decision()
  int restarts_ = 0;
  std::optional<int> port_;  // at which processes are to meet now
  std::optional<Failure> failure_;
  std::optional<Outcome> over_;  // of this host's processes
  bool gone_ = false;            // the launcher of host 0 is, so this one decides for itself
  std::optional<Decision> decision_;
  bool done_ = false;
};

}  // namespace sluice::launch
