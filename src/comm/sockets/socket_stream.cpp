#include "comm/sockets/socket_stream.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

namespace sluice {

namespace {

bool passing(int code) {
  return code == EAGAIN || code == EINTR || code == ENOBUFS || code == ENOMEM;
}

msghdr message_of(std::span<iovec> parts) {
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  return message;
}

}  // namespace

size_t SocketStream::read(std::span<iovec> into) {
  if (ended_) return 0;
  msghdr message = message_of(into);
  const ssize_t count = ::recvmsg(number(), &message, MSG_DONTWAIT);
  if (count > 0) return static_cast<size_t>(count);
  if (count < 0 && passing(errno)) return 0;
  if (count < 0) failed(errno);
  if (why_.empty()) why_ = "its connection was closed";
  ended_ = true;
  deaf_ = true;
  return 0;
}

size_t SocketStream::write(std::span<iovec> from) {
  if (deaf_) return 0;
  const msghdr message = message_of(from);
  const ssize_t count = ::sendmsg(number(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (count >= 0) return static_cast<size_t>(count);
  if (passing(errno)) return 0;
  failed(errno);
  deaf_ = true;
  return 0;
}

void SocketStream::failed(int code) {
  if (!why_.empty()) return;
  why_ = std::generic_category().message(code);
  cut_ = code != ECONNRESET && code != EPIPE;
}

void SocketStream::refuse(std::string why) {
  why_ = std::move(why);
  cut_ = true;
  ended_ = true;
  deaf_ = true;
}

void SocketStream::finish() const {
  if (!ended_) ::shutdown(number(), SHUT_WR);
}

bool SocketStream::delivering() const {
  if (ended_) return false;
  constexpr int reads = 64;
  std::array<std::byte, 16384> dropped;
  for (int i = 0; i < reads && ::recv(number(), dropped.data(), dropped.size(), MSG_DONTWAIT) > 0; ++i) continue;
  // What is written to a socket of the Unix domain is with the other side at once.
  int domain = AF_UNIX;
  socklen_t size = sizeof(domain);
  ::getsockopt(number(), SOL_SOCKET, SO_DOMAIN, &domain, &size);
  int unconfirmed = 0;
  return domain != AF_UNIX && ::ioctl(number(), SIOCOUTQ, &unconfirmed) == 0 && unconfirmed > 0;
}

}  // namespace sluice
