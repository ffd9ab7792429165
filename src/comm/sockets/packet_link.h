// Packets over a connected stream socket, each with its length before it. They arrive in their order.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "comm/sockets/socket_stream.h"

namespace sluice {

class PacketLink {
 public:
  explicit PacketLink(Descriptor socket);

  SocketStream& stream() { return stream_; }
  const SocketStream& stream() const { return stream_; }

  // The system takes as much as it can at once; the rest waits for flush().
  void send(std::span<const std::byte> packet);
  void flush();
  bool waiting() const { return out_at_ < out_.size(); }

  // Reads once what has come.
  void read();
  // The next packet that is complete, valid until read().
  std::optional<std::span<const std::byte>> next();

 private:
  SocketStream stream_;
  std::vector<std::byte> out_;  // written up to out_at_
  size_t out_at_ = 0;
  std::unique_ptr<std::byte[]> in_;  // bytes that have come lie between in_at_ and in_end_
  size_t in_at_ = 0;
  size_t in_end_ = 0;
};

}  // namespace sluice
