// A connected stream socket, of TCP or of the Unix domain, that never blocks: what can be moved now is.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <span>
#include <string>

#include "base/descriptor.h"

namespace sluice {

class SocketStream {
 public:
  explicit SocketStream(Descriptor socket) : socket_(std::move(socket)) {}

  int number() const { return socket_.number(); }

  // Bytes moved; 0 where none can be now, or ever.
  size_t read(std::span<iovec> into);
  size_t write(std::span<iovec> from);
  // Nothing is taken any more; what the other side had sent before can still be read.
  bool deaf() const { return deaf_; }

  // Nothing comes any more, and all that came has been read.
  bool ended() const { return ended_; }
  // It ended by a failure of the network, or by refuse(), and not because the other side closed it.
  bool cut() const { return cut_; }
  // The reason, where it has ended.
  const std::string& why() const { return why_; }
  // Ends it, because what came is not what it has to be.
  void refuse(std::string why);

  // Tells the other side that no more comes.
  void finish() const;
  // After finish(): whether the other side's system has yet to confirm some of what was written. Reads and drops what
  // has come. Data that a closed socket leaves unread, or gets, make the system drop what is not confirmed.
  bool delivering() const;

 private:
  void failed(int code);

  Descriptor socket_;
  bool deaf_ = false;
  bool ended_ = false;
  bool cut_ = false;
  std::string why_;
};

}  // namespace sluice
