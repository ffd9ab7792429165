// Addresses of TCP sockets, IPv4 and IPv6, and the names that stand for them.
#pragma once

#include <sys/socket.h>

#include <optional>
#include <string>
#include <vector>

namespace sluice {

class SocketAddress {
 public:
  SocketAddress() = default;
  // An IPv4 address within an IPv6 one becomes what it is.
  SocketAddress(const sockaddr* address, socklen_t length);
  // "10.77.0.1", "fe80::1"; none for what is no such number.
  static std::optional<SocketAddress> parse(const std::string& host, int port);

  std::string host() const;  // "10.77.0.1", "fe80::1"
  int port() const;
  std::string str() const;  // "10.77.0.1:29500", "[fe80::1]:29500"
  // 127.0.0.0/8 or ::1: a machine reaches itself by it, and nothing else.
  bool loopback() const;
  // Whether this machine has it.
  bool here() const;

  // The same at another port.
  SocketAddress at(int port) const;
  // A link-local address of IPv6 means something on one network only: on the one that `other` is on.
  SocketAddress on_network_of(const SocketAddress& other) const;

  int family() const { return storage_.ss_family; }
  const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&storage_); }
  socklen_t length() const { return length_; }

 private:
  sockaddr_storage storage_{};
  socklen_t length_ = 0;
};

// The addresses of a name, the best first; none: `why` says what is wrong with it. May take the seconds that a name
// server takes to answer.
std::vector<SocketAddress> addresses_of(const std::string& host, int port, std::string& why);

// "host:29500", "[fe80::1]:29500"
std::string host_and_port(const std::string& host, int port);

}  // namespace sluice
