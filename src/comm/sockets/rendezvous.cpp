#include "comm/sockets/rendezvous.h"

#include <utility>

#include "comm/sockets/guest_side.h"
#include "comm/sockets/host_side.h"

namespace sluice {

std::unique_ptr<Wire> connect_by_sockets(const Rendezvous& rendezvous, const Member& self, int processes, int world,
                                         std::vector<Member>& members, std::optional<Listener> listener) {
  require(processes >= 1 && self.process >= 0 && self.process < processes, "process {} of {}", self.process, processes);
  require(rendezvous.timeout_s > 0, "a time-out of {} s", rendezvous.timeout_s);
  // Two to each other process, and during the rendezvous one more.
  allow_descriptors(3 * processes);
  const LocalListener local;
  std::vector<SocketWire::Sockets> sockets;
  Directory directory;
  if (processes == 1) {
    check_members({self}, world);
    directory.contacts.push_back({.member = self, .address = {}, .local = {}});
    sockets.resize(1);
  } else if (self.process == 0) {
    if (!listener) listener.emplace(rendezvous.port);
    HostSide side(rendezvous, self, processes, world, *listener, local);
    sockets = side.connect();
    directory = side.directory();
  } else {
    const Listener own(0);
    GuestSide side(rendezvous,
                   {.member = self, .processes = processes, .world = world, .port = own.port(), .local = local.name()},
                   own, local);
    sockets = side.connect();
    directory = side.directory();
  }
  members.clear();
  for (Contact& contact : directory.contacts) members.push_back(std::move(contact.member));
  return std::make_unique<SocketWire>(self.process, std::move(sockets));
}

}  // namespace sluice
