// The hosts of a run, as the launcher of one of them sees them: processes are started when the launchers of all are
// there, end everywhere when one fails anywhere, and are started again when all have ended.
//   The launcher of host 0 listens at the master's address, and the others come to it. Whenever processes are started
// it opens another port for process 0: no process of an earlier time, nor a port that is not free yet, is in the way.
// A launcher that is lost has failed with its processes, which end with it. Another may take its place before the next
// start.
#pragma once

#include <poll.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "comm/sockets/sockets.h"
#include "launch/local_plan.h"

namespace sluice::launch {

struct LaunchTimes {
  double grace_s = 10;     // between SIGTERM and SIGKILL
  double meeting_s = 600;  // for which launchers of other hosts are waited for
};

class Hosts {
 public:
  // Where the processes meet.
  struct Start {
    Address master;
    std::optional<Listener> listener = {};  // for process 0, if it is one of this host
  };
  struct Failure {
    int code = 1;
    std::string text;
  };
  // Of this host's processes when all have ended.
  struct Outcome {
    int code = 0;
    bool failed = false;     // for another reason than a signal
    bool signalled = false;  // one was passed on
  };
  // When all processes of all hosts have ended. `code` is that of the first failure.
  struct Decision {
    bool again = false;
    int code = 0;
  };

  Hosts() = default;
  Hosts(const Hosts&) = delete;
  Hosts& operator=(const Hosts&) = delete;
  Hosts(Hosts&&) = delete;
  Hosts& operator=(Hosts&&) = delete;
  // Before the run is over: tells the others that this launcher has given up.
  virtual ~Hosts() = default;

  // Adds what to wait for beside everything else, for a second at most.
  virtual void watch(std::vector<pollfd>& all) const = 0;
  // Takes what has come.
  virtual void read() = 0;

  // To be asked until it says something. User error where the launchers do not fit together, runtime error that names
  // who has not come in time.
  virtual std::optional<Start> start() = 0;
  // A process of this host has failed.
  virtual void tell(const Failure& failure) = 0;
  // The first failure of the processes that were started last, if it was on another host.
  virtual const Failure* elsewhere() const = 0;
  virtual void tell_over(const Outcome& outcome) = 0;
  // To be asked after tell_over() until it says something. `again` at most as often as the plan allows, neither after a
  // signal that was passed on nor after exit code 2, which the same command would end with again.
  virtual std::optional<Decision> decision() = 0;
};

using Say = std::function<void(log::Level level, const std::string& text)>;
std::unique_ptr<Hosts> make_hosts(const LocalPlan& plan, const LaunchTimes& times, Say say);

// Whether all is to be started again, after `restarts` times.
bool start_again(const LocalPlan& plan, int restarts, const Hosts::Outcome& all);
// "host 1 (node-b)"
std::string host_named(int host, const std::string& name);
std::string machine_name();

}  // namespace sluice::launch
