#include "launch/listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <climits>

namespace sluice::launch {
namespace {

// 0: it is no listening socket of the internet's families.
int listening_port(int number) {
  int listens = 0;
  socklen_t size = sizeof listens;
  if (::getsockopt(number, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0) return 0;
  sockaddr_storage address{};
  size = sizeof address;
  if (::getsockname(number, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  if (address.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
  if (address.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port);
  return 0;
}

}  // namespace

std::optional<Descriptor> inherited_listener(const Environment& environment, int port) {
  constexpr int kFirstOwn = 3;  // behind the standard ones
  const std::optional<int> number = environment.number(kListenerName, kFirstOwn, INT_MAX);
  if (!number || listening_port(*number) != port) return std::nullopt;
  ::fcntl(*number, F_SETFD, FD_CLOEXEC);
  return Descriptor(*number);
}

}  // namespace sluice::launch
