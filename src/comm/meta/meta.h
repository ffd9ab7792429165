// meta: communicators without data, which charge virtual clocks. Any rank of a world of any size can stand alone: a
// collective takes as long as the network model says, as if the other ranks came at the same time.
// Each communicator is a stream of its own: a collective starts when the one before it has ended and everything on
// `after` has, and wait() lets the waiting stream continue no earlier than the end; issued early it is hidden.
// Messages leave on the sender's link one after the other. Between ranks that are simulated together (`linked`, one
// thread each) a message takes its arrival time to the receiver, with the watchdog of inproc; in a world without linked
// ranks it is there when the receive is issued.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/meta/network.h"

namespace sluice {

// What a rank communicated, for the plan's report. Groups of one are free and not in it.
struct TrafficTotals {
  int64_t calls = 0;
  double bytes = 0;      // sent or received by this rank, whichever is more
  double seconds = 0;    // by the network model
  double exposed_s = 0;  // of these, how long a stream waited
  double idle_s = 0;     // longer waits: for a peer that had yet to send (the pipeline's bubble)

  TrafficTotals& operator+=(const TrafficTotals& other);
};

class Traffic {
 public:
  using ByKind = std::array<TrafficTotals, kCollectives>;

  const std::map<std::string, ByKind>& axes() const { return axes_; }
  TrafficTotals total(const std::string& axis) const;
  TrafficTotals total() const;
  TrafficTotals of(const std::string& axis, Collective kind) const;
  void reset();

  ByKind& axis(const std::string& name) { return axes_[name]; }

 private:
  std::map<std::string, ByKind> axes_;
};

class MetaWorld {
 public:
  // `linked`: ranks that are simulated together.
  MetaWorld(const NetworkModel& network, int size, std::vector<int> linked = {}, double timeout_s = 600);
  ~MetaWorld();
  MetaWorld(const MetaWorld&) = delete;
  MetaWorld& operator=(const MetaWorld&) = delete;

  // The communicator of all ranks as `rank` sees it, axis "world". The world must outlive it and all split from it.
  std::unique_ptr<Communicator> communicator(int rank);

  // body(world communicator) for every linked rank, on threads; fails like run_ranks.
  void run(const std::function<void(Communicator& world)>& body);

  // Written by the rank's thread; to be read when it has ended or by it.
  Traffic& traffic(int rank);

 private:
  struct State;
  friend class MetaCommunicator;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
