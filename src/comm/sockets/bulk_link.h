// Bulk over a connected stream socket: read and written where it is, one after the other in the order of send(), each
// behind its id and size.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>

#include "comm/sockets/socket_stream.h"

namespace sluice {

class BulkLink {
 public:
  explicit BulkLink(Descriptor socket) : stream_(std::move(socket)) {}

  SocketStream& stream() { return stream_; }
  const SocketStream& stream() const { return stream_; }

  void send(uint32_t id, std::span<const std::byte> bytes);
  // Before the other side sends it; what comes and is not expected, or in another size, ends the stream.
  void expect(uint32_t id, std::span<std::byte> bytes);

  bool waiting() const { return !outgoing_.empty(); }
  // Writes once.
  void write();
  // The next that is written completely.
  std::optional<uint32_t> next_sent();
  // Reads once; the bulk that is complete by it.
  std::optional<uint32_t> read();

  // No memory is touched any more, and nothing is sent, complete or expected.
  void abandon();

 private:
  struct Header {
    uint32_t id;
    uint32_t zero;
    uint64_t bytes;
  };
  static constexpr size_t kHeader = sizeof(Header);
  struct Outgoing {
    Header header;
    std::span<const std::byte> bytes;
    size_t written = 0;  // of header and bytes
  };

  void begin_incoming();

  SocketStream stream_;
  std::deque<Outgoing> outgoing_;
  std::deque<uint32_t> sent_;
  std::map<uint32_t, std::span<std::byte>> expected_;
  std::array<std::byte, kHeader> header_{};  // of what comes next
  size_t header_bytes_ = 0;                  // of it have come
  uint32_t incoming_ = 0;
  std::span<std::byte> rest_;  // of what is coming; empty: nothing is
};

}  // namespace sluice
