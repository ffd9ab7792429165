// The processes of a job meet at process 0, and connect.
//   Process 0 listens at a port, and the others come to it and introduce themselves. When all are there and fit
// together it tells everybody where everybody is; each connects to each, and begins when all have. Whatever goes wrong
// before ends all processes that have come, with the same words.
//   An address of a process is the one that process 0 sees it come from, and process 0's the one by which the others
// found it: what a machine thinks of its own addresses is often wrong.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/processes/members.h"
#include "comm/processes/wire.h"
#include "comm/sockets/sockets.h"

namespace sluice {

struct Rendezvous {
  std::string host;  // of process 0, a name or an address
  int port = 0;
  double timeout_s = 60;
  // Whether processes of one machine connect without TCP, where they can.
  bool local = true;
};

// The wire of this process; `members` are those of all, in the order of processes.
//   Process 0 listens at `rendezvous.port` of all addresses of its machine, as some launchers tell it that it is
// "localhost", or where `listener` does. The others may start before it.
//   User error where processes do not fit together (check_members), one comes twice, the port is taken, or the host's
// name stands for nothing. Runtime error after `timeout_s` that names who is missing: what a process that has reached
// process 0 hears last, it hears from there, up to so much later.
std::unique_ptr<Wire> connect_by_sockets(const Rendezvous& rendezvous, const Member& self, int processes, int world,
                                         std::vector<Member>& members, std::optional<Listener> listener = std::nullopt);

}  // namespace sluice
