#include "launch/listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <climits>
#include <system_error>

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

Error failure(const char* action) {
  return runtime_failure("cannot {} on this host: {}", action, std::generic_category().message(errno));
}

}  // namespace

OpenListener listen_locally() {
  OpenListener listener{.socket = Descriptor(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))};
  if (listener.socket.number() < 0) throw failure("open a socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::bind(listener.socket.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener.socket.number(), SOMAXCONN) != 0) {
    throw failure("find a free port");
  }
  listener.port = listening_port(listener.socket.number());
  return listener;
}

std::optional<Descriptor> inherited_listener(const Environment& environment, int port) {
  constexpr int kFirstOwn = 3;  // behind the standard ones
  const std::optional<int> number = environment.number(kListenerName, kFirstOwn, INT_MAX);
  if (!number || listening_port(*number) != port) return std::nullopt;
  ::fcntl(*number, F_SETFD, FD_CLOEXEC);
  return Descriptor(*number);
}

}  // namespace sluice::launch
