#include "comm/sockets/sockets.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace sluice {

namespace {

constexpr int kStream = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
// As many as the system allows: all processes of a job may come at once.
constexpr int kBacklog = 4096;

void set(int number, int level, int option, int value) {
  // None of them is needed for a right result.
  [[maybe_unused]] const int code = ::setsockopt(number, level, option, &value, sizeof(value));
}

std::string reason(int code) {
  return std::generic_category().message(code);
}

bool is_tcp(int number) {
  int domain = 0;
  socklen_t length = sizeof(domain);
  return ::getsockopt(number, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain != AF_UNIX;
}

// One socket for IPv4 and IPv6, or for IPv4 alone where the machine has no other.
Descriptor bound_to_all(int port, int& code) {
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(static_cast<uint16_t>(port));
  Descriptor both(::socket(AF_INET6, kStream, 0));
  if (both.number() >= 0) {
    set(both.number(), SOL_SOCKET, SO_REUSEADDR, 1);
    set(both.number(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (::bind(both.number(), reinterpret_cast<const sockaddr*>(&six), sizeof(six)) == 0) return both;
    code = errno;
    if (code != EADDRNOTAVAIL && code != EAFNOSUPPORT) return Descriptor(-1);
  }
  sockaddr_in four{};
  four.sin_family = AF_INET;
  four.sin_port = htons(static_cast<uint16_t>(port));
  Descriptor one(::socket(AF_INET, kStream, 0));
  set(one.number(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (::bind(one.number(), reinterpret_cast<const sockaddr*>(&four), sizeof(four)) == 0) return one;
  code = errno;
  return Descriptor(-1);
}

Descriptor bound_to(const std::string& address, int port, int& code) {
  std::string why;
  for (const SocketAddress& a : addresses_of(address, port, why)) {
    Descriptor one(::socket(a.family(), kStream, 0));
    set(one.number(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (::bind(one.number(), a.raw(), a.length()) == 0) return one;
    code = errno;
  }
  if (!why.empty()) throw user_error("there is no address {}: {}", address, why).advise("give one of this machine");
  return Descriptor(-1);
}

Error cannot_listen(const std::string& address, int port, int code) {
  const std::string where = address.empty() ? fmt::format("port {}", port) : host_and_port(address, port);
  Error error = user_error("this process cannot listen at {}: {}", where, reason(code));
  if (code == EADDRINUSE) {
    return std::move(error).advise(fmt::format(
        "another program has that port, maybe a job that has not ended (`ss -ltnp` shows which): end it, or give all "
        "processes of this job another port (MASTER_PORT, or the launcher's option)"));
  }
  if (code == EACCES)
    return std::move(error).advise("give all processes a port from 1024 on (MASTER_PORT, or the launcher's option)");
  if (code == EADDRNOTAVAIL) return std::move(error).advise("that is no address of this machine: give one that is");
  return error;
}

// "\0sluice-NAME": an abstract name is no file, and is gone when nobody has it open.
sockaddr_un local_address(const std::string& name, socklen_t& length) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string full = "sluice-" + name;
  const size_t bytes = std::min(full.size(), sizeof(address.sun_path) - 1);
  std::memcpy(address.sun_path + 1, full.data(), bytes);
  length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + bytes);
  return address;
}

SocketAddress own_address(int number) {
  sockaddr_storage own{};
  socklen_t length = sizeof(own);
  ::getsockname(number, reinterpret_cast<sockaddr*>(&own), &length);
  return {reinterpret_cast<const sockaddr*>(&own), length};
}

int finish_connecting(const Descriptor& socket, Deadline deadline) {
  if (!wait_for(socket.number(), POLLOUT, deadline)) return ETIMEDOUT;
  int code = 0;
  socklen_t length = sizeof(code);
  return ::getsockopt(socket.number(), SOL_SOCKET, SO_ERROR, &code, &length) == 0 ? code : errno;
}

}  // namespace

Deadline deadline_in(double seconds) {
  using std::chrono::duration;
  return std::chrono::steady_clock::now() +
         std::chrono::duration_cast<Deadline::duration>(duration<double>(std::clamp(seconds, 0.0, 1e8)));
}

int milliseconds_until(Deadline deadline) {
  using std::chrono::milliseconds;
  if (deadline == Deadline::max()) return -1;
  const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp(left, milliseconds{0}, milliseconds{1'000'000}).count());
}

bool wait_for(int number, short events, Deadline deadline) {
  while (true) {
    pollfd watched{.fd = number, .events = events, .revents = 0};
    if (::poll(&watched, 1, milliseconds_until(deadline)) > 0) return true;
    if (std::chrono::steady_clock::now() >= deadline) return false;
  }
}

Listener::Listener(int port, const std::string& address) : socket_(-1) {
  if (port < 0 || port > 65535) {
    throw user_error("there is no port {}", port).advise("ports go from 1 to 65535; choose one from 1024 on");
  }
  int code = 0;
  socket_ = address.empty() ? bound_to_all(port, code) : bound_to(address, port, code);
  if (socket_.number() < 0 || ::listen(socket_.number(), kBacklog) != 0) {
    throw cannot_listen(address, port, socket_.number() < 0 ? code : errno);
  }
  port_ = own_address(socket_.number()).port();
}

LocalListener::LocalListener() : name_(random_name()), socket_(::socket(AF_UNIX, kStream, 0)) {
  socklen_t length = 0;
  const sockaddr_un address = local_address(name_, length);
  if (socket_.number() < 0 || ::bind(socket_.number(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      ::listen(socket_.number(), kBacklog) != 0) {
    throw runtime_failure("this process cannot listen to others of its machine: {}", reason(errno));
  }
}

Descriptor accept_one(int listener, SocketAddress& from) {
  sockaddr_storage peer{};
  socklen_t length = sizeof(peer);
  Descriptor socket(::accept4(listener, reinterpret_cast<sockaddr*>(&peer), &length, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket.number() < 0 && (errno == EMFILE || errno == ENFILE)) {
    throw user_error("a connection cannot be taken: {}", reason(errno))
        .advise("allow more open files (`ulimit -n`), for each other process needs three");
  }
  if (socket.number() >= 0 && peer.ss_family != AF_UNIX) {
    from = SocketAddress(reinterpret_cast<const sockaddr*>(&peer), length);
  }
  return socket;
}

int connect_to(const SocketAddress& address, Deadline deadline, Descriptor& socket) {
  socket = Descriptor(::socket(address.family(), kStream, 0));
  if (socket.number() < 0) return errno;
  int code = ::connect(socket.number(), address.raw(), address.length()) == 0 ? 0 : errno;
  if (code == EINPROGRESS || code == EINTR) code = finish_connecting(socket, deadline);
  // Where nobody listens at a port that the system also gives to those who connect, it may connect one to itself.
  if (code == 0 && own_address(socket.number()).str() == peer_of(socket.number()).str()) return ECONNREFUSED;
  return code;
}

int connect_locally(const std::string& name, Deadline deadline, Descriptor& socket) {
  socket = Descriptor(::socket(AF_UNIX, kStream, 0));
  if (socket.number() < 0) return errno;
  socklen_t length = 0;
  const sockaddr_un address = local_address(name, length);
  // Where more wait to be taken than the listener has room for, nothing tells when there is room again.
  while (::connect(socket.number(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    if (errno != EAGAIN && errno != EINTR) return errno;
    if (std::chrono::steady_clock::now() >= deadline) return ETIMEDOUT;
    ::poll(nullptr, 0, 1);
  }
  return 0;
}

SocketAddress peer_of(int number) {
  sockaddr_storage peer{};
  socklen_t length = sizeof(peer);
  if (::getpeername(number, reinterpret_cast<sockaddr*>(&peer), &length) != 0 || peer.ss_family == AF_UNIX) return {};
  return {reinterpret_cast<const sockaddr*>(&peer), length};
}

std::string random_name() {
  std::array<unsigned char, 16> bytes{};
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    throw runtime_failure("the system gives no random numbers: {}", reason(errno));
  }
  std::string name;
  for (const unsigned char byte : bytes) name += fmt::format("{:02x}", byte);
  return name;
}

void allow_descriptors(int count) {
  constexpr rlim_t others = 256;  // files, libraries, a GPU's driver
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t needed = static_cast<rlim_t>(count) + others;
  if (limit.rlim_cur >= needed) return;
  if (limit.rlim_max < needed) {
    throw user_error("a process may have {} files open here, and {} connections to the others are needed",
                     limit.rlim_max, count)
        .advise(fmt::format("allow {} (`ulimit -n`, or LimitNOFILE of the service that starts the processes), or run "
                            "fewer processes with more ranks each",
                            needed));
  }
  limit.rlim_cur = needed;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

void prepare_for_packets(int number) {
  if (!is_tcp(number)) return;
  constexpr int seconds = 10;
  set(number, IPPROTO_TCP, TCP_NODELAY, 1);
  set(number, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(number, IPPROTO_TCP, TCP_KEEPIDLE, seconds / 2);
  set(number, IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set(number, IPPROTO_TCP, TCP_KEEPCNT, seconds / 2);
  set(number, IPPROTO_TCP, TCP_USER_TIMEOUT, seconds * 1000);
}

void prepare_for_bulk(int number) {
  if (is_tcp(number)) {
    // The system finds the size of its buffers by itself, as long as nobody sets one.
    set(number, IPPROTO_TCP, TCP_NODELAY, 1);
    set(number, SOL_SOCKET, SO_KEEPALIVE, 1);
    return;
  }
  constexpr int bytes = 1 << 20;
  set(number, SOL_SOCKET, SO_SNDBUF, bytes);
  set(number, SOL_SOCKET, SO_RCVBUF, bytes);
}

}  // namespace sluice
