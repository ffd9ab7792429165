#include "comm/sockets/socket_address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>

#include "base/descriptor.h"

namespace sluice {

namespace {

template <class T>
T as(const sockaddr_storage& storage) {
  T address{};
  std::memcpy(&address, &storage, sizeof(address));
  return address;
}

}  // namespace

SocketAddress::SocketAddress(const sockaddr* address, socklen_t length) : length_(length) {
  std::memcpy(&storage_, address, std::min(static_cast<size_t>(length), sizeof(storage_)));
  if (family() != AF_INET6) return;
  const auto six = as<sockaddr_in6>(storage_);
  if (!IN6_IS_ADDR_V4MAPPED(&six.sin6_addr)) return;
  sockaddr_in four{};
  four.sin_family = AF_INET;
  four.sin_port = six.sin6_port;
  std::memcpy(&four.sin_addr, six.sin6_addr.s6_addr + 12, 4);
  storage_ = {};
  std::memcpy(&storage_, &four, sizeof(four));
  length_ = sizeof(four);
}

std::optional<SocketAddress> SocketAddress::parse(const std::string& host, int port) {
  sockaddr_in four{};
  four.sin_family = AF_INET;
  four.sin_port = htons(static_cast<uint16_t>(port));
  if (::inet_pton(AF_INET, host.c_str(), &four.sin_addr) == 1) {
    return SocketAddress(reinterpret_cast<const sockaddr*>(&four), sizeof(four));
  }
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(static_cast<uint16_t>(port));
  if (::inet_pton(AF_INET6, host.c_str(), &six.sin6_addr) == 1) {
    return SocketAddress(reinterpret_cast<const sockaddr*>(&six), sizeof(six));
  }
  return std::nullopt;
}

std::string SocketAddress::host() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (family() == AF_INET) {
    const auto four = as<sockaddr_in>(storage_);
    ::inet_ntop(AF_INET, &four.sin_addr, text, sizeof(text));
  } else if (family() == AF_INET6) {
    const auto six = as<sockaddr_in6>(storage_);
    ::inet_ntop(AF_INET6, &six.sin6_addr, text, sizeof(text));
  }
  return text;
}

int SocketAddress::port() const {
  return ntohs(family() == AF_INET ? as<sockaddr_in>(storage_).sin_port : as<sockaddr_in6>(storage_).sin6_port);
}

std::string SocketAddress::str() const {
  return host_and_port(host(), port());
}

bool SocketAddress::loopback() const {
  if (family() == AF_INET) return ntohl(as<sockaddr_in>(storage_).sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
  const auto six = as<sockaddr_in6>(storage_);
  return family() == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&six.sin6_addr);
}

bool SocketAddress::here() const {
  const Descriptor socket(::socket(family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  const SocketAddress any_port = at(0);
  return socket.number() >= 0 && ::bind(socket.number(), any_port.raw(), any_port.length()) == 0;
}

SocketAddress SocketAddress::at(int port) const {
  SocketAddress other = *this;
  if (family() == AF_INET) {
    auto four = as<sockaddr_in>(storage_);
    four.sin_port = htons(static_cast<uint16_t>(port));
    std::memcpy(&other.storage_, &four, sizeof(four));
  } else {
    auto six = as<sockaddr_in6>(storage_);
    six.sin6_port = htons(static_cast<uint16_t>(port));
    std::memcpy(&other.storage_, &six, sizeof(six));
  }
  return other;
}

SocketAddress SocketAddress::on_network_of(const SocketAddress& other) const {
  SocketAddress same = *this;
  auto six = as<sockaddr_in6>(storage_);
  if (family() != AF_INET6 || other.family() != AF_INET6 || !IN6_IS_ADDR_LINKLOCAL(&six.sin6_addr)) return same;
  six.sin6_scope_id = as<sockaddr_in6>(other.storage_).sin6_scope_id;
  std::memcpy(&same.storage_, &six, sizeof(six));
  return same;
}

std::vector<SocketAddress> addresses_of(const std::string& host, int port, std::string& why) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, [](addrinfo* list) {
    if (list != nullptr) ::freeaddrinfo(list);
  });
  std::vector<SocketAddress> addresses;
  if (code != 0) {
    why = code == EAI_SYSTEM ? std::generic_category().message(errno) : ::gai_strerror(code);
    return addresses;
  }
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) addresses.emplace_back(at->ai_addr, at->ai_addrlen);
  if (addresses.empty()) why = "it has no address";
  return addresses;
}

std::string host_and_port(const std::string& host, int port) {
  const bool colons = host.find(':') != std::string::npos;
  return (colons ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

}  // namespace sluice
