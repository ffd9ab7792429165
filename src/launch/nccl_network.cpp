#include "launch/nccl_network.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <set>

#include "base/log.h"

namespace sluice::launch {
namespace {

constexpr const char* kName = "NCCL_SOCKET_IFNAME";

// The address from which this host would send to `to`; nothing is sent.
std::optional<sockaddr_storage> address_towards(const addrinfo& to) {
  const int socket = ::socket(to.ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return std::nullopt;
  sockaddr_storage own{};
  socklen_t size = sizeof own;
  const bool known = ::connect(socket, to.ai_addr, to.ai_addrlen) == 0 &&
                     ::getsockname(socket, reinterpret_cast<sockaddr*>(&own), &size) == 0;
  ::close(socket);
  return known ? std::optional(own) : std::nullopt;
}

bool same(const sockaddr_storage& a, const sockaddr* b) {
  if (b == nullptr || a.ss_family != b->sa_family) return false;
  if (a.ss_family == AF_INET) {
    return reinterpret_cast<const sockaddr_in&>(a).sin_addr.s_addr ==
           reinterpret_cast<const sockaddr_in*>(b)->sin_addr.s_addr;
  }
  return a.ss_family == AF_INET6 &&
         std::memcmp(&reinterpret_cast<const sockaddr_in6&>(a).sin6_addr,
                     &reinterpret_cast<const sockaddr_in6*>(b)->sin6_addr, sizeof(in6_addr)) == 0;
}

std::optional<std::string> interface_with(const sockaddr_storage& address) {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return std::nullopt;
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> held(list, &::freeifaddrs);
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (!same(address, each->ifa_addr)) continue;
    if ((each->ifa_flags & IFF_LOOPBACK) != 0) return std::nullopt;
    return each->ifa_name;
  }
  return std::nullopt;
}

bool says(const std::filesystem::path& file, const std::string& name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(name + "=")) return true;
  }
  return false;
}

}  // namespace

std::optional<std::string> interface_to(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* list = nullptr;
  constexpr const char* kAnyPort = "9";  // of a datagram that is not sent
  if (::getaddrinfo(host.c_str(), kAnyPort, &hints, &list) != 0) return std::nullopt;
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> held(list, &::freeaddrinfo);
  for (const addrinfo* each = list; each != nullptr; each = each->ai_next) {
    const auto own = address_towards(*each);
    if (!own) continue;
    if (auto name = interface_with(*own)) return name;
  }
  return std::nullopt;
}

std::string nccl_interface(const std::vector<Member>& members, const std::string& master,
                           const std::vector<std::filesystem::path>& files) {
  std::set<std::string> hosts;
  for (const Member& member : members) hosts.insert(member.host);
  if (hosts.size() == 1 || std::getenv(kName) != nullptr) return {};
  for (const std::filesystem::path& file : files) {
    if (says(file, kName)) return {};
  }
  const auto name = interface_to(master.empty() ? members.front().host : master);
  return name ? "=" + *name : "";  // "=": this one, and not all whose names begin so
}

void choose_nccl_interface(const Courier& courier, const std::string& master) {
  std::vector<std::filesystem::path> files = {"/etc/nccl.conf"};
  if (const char* own = std::getenv("NCCL_CONF_FILE")) files.emplace_back(own);
  if (const char* home = std::getenv("HOME")) files.push_back(std::filesystem::path(home) / ".nccl.conf");
  const std::string value = nccl_interface(courier.members(), master, files);
  if (value.empty()) return;
  ::setenv(kName, value.c_str(), 0);
  if (courier.self().first_rank == 0) {
    log::info("NCCL meets over {}, from which {} is reached; {} chooses another", value.substr(1),
              master.empty() ? courier.members().front().host : master, kName);
  }
}

}  // namespace sluice::launch
