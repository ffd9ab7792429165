// The hosts of a run as the launcher of host 0 sees them.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "comm/sockets/letters.h"
#include "launch/host_letters.h"
#include "launch/hosts.h"

namespace sluice::launch {

class FirstHost final : public Hosts {
 public:
  FirstHost(const LocalPlan& plan, const LaunchTimes& times, Say say);
  ~FirstHost() override;
  FirstHost(const FirstHost&) = delete;
  FirstHost& operator=(const FirstHost&) = delete;
  FirstHost(FirstHost&&) = delete;
  FirstHost& operator=(FirstHost&&) = delete;

  void watch(std::vector<pollfd>& all) const override;
  void read() override;
  std::optional<Start> start() override;
  void tell(const Failure& failure) override;
  const Failure* elsewhere() const override;
  void tell_over(const Outcome& outcome) override { over_ = outcome; }
  std::optional<Decision> decision() override;

 private:
  // The launcher of another host.
  struct Other {
    std::optional<Correspondent> who = {};  // none: it is not there
    std::string name = "?";
    std::optional<Outcome> over = {};  // of the processes that were started last
  };

  // Whether it stays among those who have not said yet who they are.
  bool receive(Correspondent& visitor);
  void admit(Correspondent& visitor, const HostIntroduction& introduction);
  // What is wrong with it, if anything.
  std::optional<Error> objection(const HostIntroduction& introduction);
  void hear(size_t other);
  void take(size_t other, const HostNews& news);
  void lose(size_t other, const std::string& how);
  void fail(int host, const Failure& failure);
  void send(size_t other, const HostNews& news);
  void send_all(const HostNews& news);
  std::string missing() const;
  Error too_late() const;
  int host_of(size_t other) const { return static_cast<int>(other) + 1; }

  const LocalPlan& plan_;
  const LaunchTimes times_;
  const Say say_;
  const Listener listener_;
  std::vector<Correspondent> visitors_;  // who have not said yet who they are
  std::vector<Other> others_;            // hosts 1, 2, ...

  bool running_ = false;  // from start() to decision()
  int restarts_ = 0;
  std::optional<Deadline> deadline_;  // of the launchers that are waited for
  ProgressTimer waiting_;
  std::optional<Outcome> over_;  // of this host's processes
  std::optional<std::pair<int, Failure>> failure_;
  bool given_up_ = false;             // a launcher has, so nothing starts again
  std::optional<Deadline> patience_;  // with launchers whose processes are to end
  bool done_ = false;
};

}  // namespace sluice::launch
