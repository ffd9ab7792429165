#include "comm/sockets/packet_link.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "comm/processes/wire.h"

namespace sluice {

namespace {

using Length = uint32_t;
// Room for the largest packet. There is one for each other process, of which there may be a thousand: it takes memory
// only as far as it was used.
constexpr size_t kBuffer = sizeof(Length) + Wire::kMostPacketBytes;

iovec part(const void* data, size_t bytes) {
  return {.iov_base = const_cast<void*>(data), .iov_len = bytes};
}

}  // namespace

PacketLink::PacketLink(Descriptor socket)
    : stream_(std::move(socket)), in_(std::make_unique_for_overwrite<std::byte[]>(kBuffer)) {}

void PacketLink::send(std::span<const std::byte> packet) {
  require(!packet.empty() && packet.size() <= Wire::kMostPacketBytes, "a packet of {} bytes", packet.size());
  if (stream_.deaf()) return;
  const auto length = static_cast<Length>(packet.size());
  std::array<iovec, 2> parts{part(&length, sizeof(length)), part(packet.data(), packet.size())};
  size_t taken = waiting() ? 0 : stream_.write(parts);
  for (const iovec& p : parts) {
    const auto* const bytes = static_cast<const std::byte*>(p.iov_base);
    const size_t skipped = std::min(taken, p.iov_len);
    out_.insert(out_.end(), bytes + skipped, bytes + p.iov_len);
    taken -= skipped;
  }
}

void PacketLink::flush() {
  if (waiting()) {
    std::array<iovec, 1> rest{part(out_.data() + out_at_, out_.size() - out_at_)};
    out_at_ += stream_.write(rest);
  }
  if (!waiting() || stream_.deaf()) {
    out_.clear();
    out_at_ = 0;
  } else if (out_at_ > kBuffer && out_at_ > out_.size() / 2) {
    out_.erase(out_.begin(), out_.begin() + static_cast<ptrdiff_t>(out_at_));
    out_at_ = 0;
  }
}

void PacketLink::read() {
  std::memmove(in_.get(), in_.get() + in_at_, in_end_ - in_at_);
  in_end_ -= in_at_;
  in_at_ = 0;
  std::array<iovec, 1> space{part(in_.get() + in_end_, kBuffer - in_end_)};
  in_end_ += stream_.read(space);
}

std::optional<std::span<const std::byte>> PacketLink::next() {
  Length length = 0;
  if (in_end_ - in_at_ < sizeof(length)) return std::nullopt;
  std::memcpy(&length, in_.get() + in_at_, sizeof(length));
  if (length == 0 || length > Wire::kMostPacketBytes) {
    stream_.refuse(fmt::format("it sent {} bytes as a packet", length));
    in_at_ = in_end_ = 0;
    return std::nullopt;
  }
  if (in_end_ - in_at_ < sizeof(length) + length) return std::nullopt;
  const std::span<const std::byte> packet(in_.get() + in_at_ + sizeof(length), length);
  in_at_ += sizeof(length) + length;
  return packet;
}

}  // namespace sluice
