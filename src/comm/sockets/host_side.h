// The rendezvous as process 0 sees it.
#pragma once

#include <optional>
#include <vector>

#include "base/clock.h"
#include "comm/sockets/mesh_sockets.h"
#include "comm/sockets/rendezvous.h"

namespace sluice {

class HostSide {
 public:
  // The listeners outlive it.
  HostSide(const Rendezvous& rendezvous, const Member& self, int processes, int world, const Listener& listener,
           const LocalListener& local);

  // What goes wrong is told to all that have come.
  std::vector<SocketWire::Sockets> connect();
  const Directory& directory() const { return directory_; }

 private:
  struct Guest {
    Correspondent who;
    Introduction introduction;
    bool ready = false;
  };

  void gather();
  void admit(Reception::Visitor visitor);
  void publish();
  std::vector<SocketWire::Sockets> connect_all();
  void hear(size_t guest);
  void tell_all(const Letter& letter, Deadline deadline);
  std::vector<int> numbers() const;
  std::vector<int> missing() const;
  Error too_late() const;

  const Rendezvous& rendezvous_;
  const Member& self_;
  const int processes_;
  const int world_;
  const Listener& listener_;
  const LocalListener& local_;
  const Deadline deadline_;
  Reception reception_;
  std::vector<std::optional<Guest>> guests_;  // of processes 1, 2, ...
  std::vector<Correspondent> refused_;
  Directory directory_;
};

}  // namespace sluice
