// meta: communicators without data, which charge virtual clocks. Any rank of a world of any size can stand alone: a
// collective takes as long as the network model says, as if the other ranks came at the same time.
// Each communicator is a stream of its own: a collective starts when the one before it has ended and everything on
// `after` has, and wait() lets the waiting stream continue no earlier than the end; issued early it is hidden.
// Messages leave on the sender's link one after the other.
// Ranks that are simulated together (`linked`, a thread each) keep time with each other: a message takes its arrival
// time to the receiver, a collective starts when its last linked member comes, with the watchdog of inproc. In a world
// without linked ranks a message is there when its receive is issued.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "comm/meta/network.h"
#include "comm/meta/traffic.h"

namespace sluice {

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
