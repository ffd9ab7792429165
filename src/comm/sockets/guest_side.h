// The rendezvous as every process but process 0 sees it.
#pragma once

#include <string>
#include <vector>

#include "comm/sockets/mesh_sockets.h"
#include "comm/sockets/rendezvous.h"

namespace sluice {

class GuestSide {
 public:
  // The listeners outlive it.
  GuestSide(const Rendezvous& rendezvous, Introduction introduction, const Listener& listener,
            const LocalListener& local);

  std::vector<SocketWire::Sockets> connect();
  const Directory& directory() const { return directory_; }

 private:
  // Until it is told where all are.
  void join();
  bool try_to_join(const SocketAddress& address);
  Error not_found() const;
  std::vector<SocketWire::Sockets> connect_all();
  void hear();

  const Rendezvous& rendezvous_;
  const Introduction introduction_;
  const Deadline deadline_;
  Reception reception_;
  Correspondent zero_{Descriptor(-1)};  // the connection to process 0
  std::string why_;                     // it was not reached until now
  bool no_address_ = false;             // the host's name stands for nothing
  SocketAddress tried_;                 // the last
  Directory directory_;
};

}  // namespace sluice
