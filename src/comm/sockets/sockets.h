// Making connections: listeners, and connecting to them, each until a deadline. All sockets are closed on exec and do
// not block.
#pragma once

#include <chrono>
#include <string>

#include "base/descriptor.h"
#include "comm/sockets/socket_address.h"

namespace sluice {

using Deadline = std::chrono::steady_clock::time_point;
Deadline deadline_in(double seconds);

// Milliseconds to wait for poll() and its like, rounded up; -1: for ever.
int milliseconds_until(Deadline deadline);

// Waits until one of `events` of poll() is there; false at the deadline.
bool wait_for(int number, short events, Deadline deadline);

// Where others connect to this process.
class Listener {
 public:
  // At a port of all addresses of the machine, or of one; port 0: one that is free. User error where that cannot be.
  explicit Listener(int port, const std::string& address = "");
  // One that listens already.
  Listener(Descriptor socket, int port) : socket_(std::move(socket)), port_(port) {}

  int port() const { return port_; }
  int number() const { return socket_.number(); }

 private:
  Descriptor socket_;
  int port_ = 0;
};

// Where processes of this machine connect, by a random name that goes with the object. Faster than TCP: 7.5 GB/s
// instead of 5.0 where it was measured. Containers on one machine may not see each other so.
class LocalListener {
 public:
  LocalListener();

  const std::string& name() const { return name_; }
  int number() const { return socket_.number(); }

 private:
  std::string name_;
  Descriptor socket_;
};

// A connection that has come, -1 where none is there; `from` is set where it came by TCP. User error when the process
// has no descriptors left.
Descriptor accept_one(int listener, SocketAddress& from);

// 0, or the system's error: ETIMEDOUT at the deadline.
int connect_to(const SocketAddress& address, Deadline deadline, Descriptor& socket);
int connect_locally(const std::string& name, Deadline deadline, Descriptor& socket);

// Who is at the other end; none of a local socket.
SocketAddress peer_of(int number);

// 128 random bits, as 32 letters.
std::string random_name();

// Makes sure that `count` more files can be open, as far as the process may do so by itself; else user error.
void allow_descriptors(int count);

// What connections that the job works with are set to. Packets go at once, and the system looks whether the other side
// is there: after 10 s without an answer their connection ends. Bulk has no such limit, for one who does not read for a
// while is not gone; what is buffered of it is more, where that helps.
void prepare_for_packets(int number);
void prepare_for_bulk(int number);

}  // namespace sluice
