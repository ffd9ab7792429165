// Connects a process with every other one of its job, by two sockets each: the one of the higher number connects to
// the one of the lower.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "comm/sockets/contacts.h"
#include "comm/sockets/reception.h"
#include "comm/sockets/socket_wire.h"

namespace sluice {

struct MeshPlan {
  const Directory& directory;
  int process = 0;
  SocketAddress zero;  // by which this process reaches process 0, whose own that is not
  bool local = true;   // whether processes of one machine connect without TCP
  Deadline deadline;
  // Connections on which something else may come meanwhile, and what to do then: throw, or take what has come.
  std::function<std::vector<int>()> watched;
  std::function<void(size_t)> look;
};

// Runtime error that names who cannot be reached where and why, or who has not come.
std::vector<SocketWire::Sockets> connect_mesh(const MeshPlan& plan, Reception& reception);

// "process 2 (ranks 4-7 on host b)"
std::string named(const Member& member);
// "process 3", "processes 0-3, 7"
std::string format_processes(const std::vector<int>& processes);

}  // namespace sluice
